"""Supervised training of a classifier, with optional remedies for modalities that compete.

`supervised_objective` is the loss. `early_stopping` keeps the best state. `layer_decay` sets learning rates by depth.
`aids` configures the remedies in `balance` and `rank_loss`.

Start with `supervised_objective`. Import `SupervisedObjective` and `EarlyStopping`.
"""
