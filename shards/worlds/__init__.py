"""Generate ImpactWorld, synthetic corpora whose best possible accuracies are known exactly.

Start reading at `write_world`. To use it, import `write_world` from there, `ceilings` from `ceilings` and `PRESETS`
from `factors`.
"""
