"""All steps in one command: the demo, and `auto` on a person's own folder.

Start with `auto`.
"""
