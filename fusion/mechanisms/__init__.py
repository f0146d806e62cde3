"""The fusion mechanisms: gates, static baselines, attention, products and decisions.

Start with `gates`, which defines `Fusion` and `Fused`.
"""
