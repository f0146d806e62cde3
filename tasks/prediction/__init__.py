"""Class scores over the time of a recording, and alarms from them.

Start with `window_scores`.
"""
