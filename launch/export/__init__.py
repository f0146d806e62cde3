"""Trained models in forms for other programs.

Start with `export_job`.
"""
