"""The pretext tasks, one family per file.

Start with `base`, which defines `PretextTask`.
"""
