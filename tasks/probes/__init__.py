"""What frozen features are worth: linear probes, nearest neighbours, retrieval, few labels.

Start with `probe_features`.
"""
