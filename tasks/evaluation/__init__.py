"""Scores of test clips, and the figures they give.

Start with `scores`.
"""
