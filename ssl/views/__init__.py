"""Altered input that pretext tasks ask for.

Start with `views`.
"""
