"""Figures of merit, their intervals, and what chance reaches.

Start with `classification`.
"""
