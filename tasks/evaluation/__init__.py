"""Scoring of test clips: class probabilities, the metrics and figures they give, and comparisons of runs.

`scores` runs a classifier over clips and stores the result. `score_summary` turns scores into metrics and figures.
`validation_choices` fits thresholds and a temperature. `run_comparison` compares the stored scores of several runs.

Start with `scores`. Import `Scores`, `score_clips` and `judge`.
"""
