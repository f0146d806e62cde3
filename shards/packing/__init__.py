"""Pack a folder of recordings into shards.

Start reading at `pack`, which calls `sources`, `recording`, `encode` and `write_shards` in that order. To use it,
import `pack` from `pack` and `PackSettings` from `media.pack_settings`.
"""
