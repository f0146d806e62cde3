"""Exported models: save, check, load, describe and share them.

Start with `bundle`: `save_bundle` and `load_bundle`.
"""
