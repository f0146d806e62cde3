"""What shards hold: the index beside them, selections and folds of its clips, labels, and checks.

Start with `table`: `load_index` reads the index.
"""
