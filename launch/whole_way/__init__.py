"""All steps in one command: the demo, and `auto` on a user's own folder.

Start with `auto`.
"""
