"""Prediction on recordings, packed clips and live sources.

Start with `predicting`.
"""
