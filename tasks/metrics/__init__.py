"""Metrics, their confidence intervals, significance tests and chance levels.

`classification` and `multilabel` score clips, `detection` and `thresholds` score events in long recordings,
`calibration` scores probabilities. `fold_means` averages metrics over folds. `significance` and `auc_difference`
compare models, `chance` gives what guessing reaches.

Start with `classification`. Every function takes NumPy arrays and returns numbers.
"""
