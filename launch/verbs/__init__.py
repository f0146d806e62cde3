"""The commands: one file of options for each panel of `modalgate --help`, and one of the tables they print.

Start with `train_verbs`.
"""
