"""The index of a shard folder: clips, selections and folds of clips, labels, and checks.

Start reading at `table`. To use it, import `load_index` and `Index` from there.
"""
