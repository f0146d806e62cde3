"""Generated corpora with exact ceilings.

Start with `write_world`.
"""
