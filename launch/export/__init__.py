"""Trained models in the forms that other programs take.

Start with `exporting`.
"""
