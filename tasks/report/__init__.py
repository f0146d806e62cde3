"""The HTML report of runs.

Start with `page`.
"""
