"""Fusion mechanisms compared on the same encoders.

Start with `study_summary`.
"""
