"""How much a trained model loses when sensors fail or are missing.

`conditions` defines what is tested and stores the results. `corruptions` alters windows, `encoded_clips` keeps
encoder outputs for reuse, and `runner` measures a model under all conditions. `curves` turns the results into curves
and areas, `robustness_tables` into tables. `robustness_comparison` compares runs. `breakage` breaks one sensor.

Start with `runner`. Import `Sweeper` and `measure_robustness`.
"""
