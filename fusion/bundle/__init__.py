"""Exported models: saved, checked, loaded, described and shared.

Start with `bundle`: `save_bundle` and `load_bundle`.
"""
