"""From a folder of recordings to shards.

Start with `pack`, which calls `sources`, `recording`, `encode` and `write_shards` in that order.
"""
