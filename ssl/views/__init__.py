"""Altered input for pretext tasks.

Start with `views`.
"""
