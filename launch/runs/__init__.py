"""Run folders: metrics, progress, and what a run leaves behind.

Start with `folder`.
"""
