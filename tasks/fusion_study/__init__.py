"""Comparison of fusion mechanisms on the same frozen encoders.

`feature_bank` stores encoder features of all clips. `study_cell` scores one model of the study. `study_summary` turns
all cells into rows and significance tests, `study_tables` rows into tables and figures.

Start with `study_summary`. Import `store_clips`, `judge_cell` and `study_rows`.
"""
