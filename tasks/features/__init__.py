"""Frozen features of clips: extraction, cache, and export to Parquet or NPZ.

`extract` runs encoders over clips. `cache` keeps the features on disk and reuses them. `across_processes` shares the
work between processes. `feature_parts` and `feature_files` write the features of recordings for `modalgate embed`.

Start with `extract`. Import `Features` and `cached_features`.
"""
