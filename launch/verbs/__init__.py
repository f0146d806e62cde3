"""The commands and their options.

Start with `train_verbs`.
"""
