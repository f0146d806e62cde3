"""The pretext tasks, a family per file.

Start with `base`: `PretextTask` is what all of them are.
"""
