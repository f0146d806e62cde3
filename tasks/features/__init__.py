"""Frozen features of clips: extracted, cached, and written to files.

Start with `extract`.
"""
