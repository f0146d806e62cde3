"""The demo over seeds: results of `modalgate demo --json` side by side.

    for seed in 0 1 2 3 4; do modalgate demo --out demo-$seed --seed $seed --json demo-$seed.json; done
    .venv/bin/python benchmarks/learning/demo_seeds.py demo-?.json [--json FILE]

Prints Markdown: every figure by seed, its mean and the 95 % t interval over seeds. Differences are paired by seed.
The best single modality is the best on the test clips of that seed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from modalgate.launch.runs.closing_table import markdown_rows
from scipy.stats import t

SINGLES = ("rgb", "depth", "audio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = [figures(json.loads(file.read_text(encoding="utf-8"))) for file in arguments.files]
    rows = [
        [name, *(f"{run[name]:.3f}" for run in found), over_seeds([run[name] for run in found])] for name in found[0]
    ]
    print(markdown_rows(["figure", *(file.stem for file in arguments.files), "mean [95 %]"], rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def figures(content: dict[str, Any]) -> dict[str, float]:
    """One run's figures by name, and the differences that the demo is about."""
    rows = {row["feature"]: row for row in content["probe"]}
    found = {f"{name}, untrained": rows[name]["untrained"] for name in ("fused", "concat")}
    for when, key in (("", "probe"), (", camera broken", "broken")):
        found |= {f"{name}{when}": row[key] for name, row in rows.items()}
        best = max(rows[name][key] for name in SINGLES)
        found[f"fused - concat{when}"] = rows["fused"][key] - rows["concat"][key]
        found[f"fused - best single{when}"] = rows["fused"][key] - best
    found |= {"gate on the camera": rows["rgb"]["gate"], "the same, broken": rows["rgb"]["gate_broken"]}
    for run, name in (("demo-violence", "pretrained"), ("demo-scratch", "scratch")):
        row = content["violence"][run]
        found |= {f"violence AUC, {name}": row["auc"], f"{name}, lower bound": row["interval"][0]}
        found |= {
            f"violence AUC, {name}, camera broken": row["broken"],
            f"violence accuracy, {name}": row["accuracy"],
        }
    return found


def over_seeds(values: list[float]) -> str:
    """Mean and 95 % t interval."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return f"{mean:.3f}"
    half = float(t.ppf(0.975, count - 1)) * float(np.std(values, ddof=1)) / count**0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


if __name__ == "__main__":
    main()
