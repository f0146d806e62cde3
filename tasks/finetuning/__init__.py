"""Supervised training of a classifier, and remedies for modalities that compete.

Start with `supervised_objective`.
"""
