"""Configs: loaded, checked, completed from the shards, and documented.

Start with `load`.
"""
