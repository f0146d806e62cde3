"""Recordings and live sources of any length as pieces that a model can score.

Start with `pieces` for files and `live_source` for cameras.
"""
