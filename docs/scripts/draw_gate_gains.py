"""Draws what a gate gains over a rule without one, by condition, from the record of a study.

python docs/scripts/draw_gate_gains.py RUN/study.json docs/gate-gains.svg --gate reliability --rule product
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

GAIN, LOSS = "#2a7f62", "#b3541e"


def gains(gate: dict[str, Any], rule: dict[str, Any]) -> dict[str, float]:
    """Returns the difference of the metric, gate minus rule, in points by condition."""
    found = {"clean": gate["value"]["value"] - rule["value"]["value"]}
    for name, curve in gate["noise"].items():
        found |= {
            f"noise on {name}, {level}": v - rule["noise"][name][level] for level, v in curve.items() if level != "0"
        }
    for name, kinds in gate["held_out"].items():
        found |= {f"{name}: {kind}, not in training": v - rule["held_out"][name][kind] for kind, v in kinds.items()}
    missing = {kept: v - rule["subsets"][kept] for kept, v in gate["subsets"].items() if "+" in kept}
    found |= {f"only {kept.replace('+', ' and ')}": value for kept, value in missing.items()}
    return {condition: 100 * value for condition, value in found.items()}


def draw(found: dict[str, float], title: str, path: Path) -> None:
    """Writes a bar chart that is readable on light and dark pages."""
    canvas = Figure(figsize=(7.5, 0.32 * len(found) + 1.1), layout="constrained")
    axes = canvas.add_subplot()
    places = range(len(found))
    axes.barh(places, list(found.values()), color=[GAIN if value >= 0 else LOSS for value in found.values()])
    axes.set_yticks(places, list(found))
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=0.8)
    for place, value in zip(places, found.values(), strict=True):
        axes.annotate(
            f"{value:+.1f}",
            (value, place),
            xytext=(4 if value >= 0 else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if value >= 0 else "right",
            color="grey",
            fontsize=8,
        )
    axes.margins(x=0.15)
    axes.set_title(title, color="grey", fontsize=10, loc="left")
    axes.set_xlabel("points", color="grey")
    axes.tick_params(colors="grey", labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    canvas.savefig(path, transparent=True, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="RUN/study.json of a study")
    parser.add_argument("out", type=Path, help="the SVG to write")
    parser.add_argument("--gate", default="reliability", help="row of the gate")
    parser.add_argument("--rule", default="product", help="row to compare with")
    given = parser.parse_args()
    rows = json.loads(given.study.read_text(encoding="utf-8"))
    found = gains(rows[given.gate], rows[given.rule])
    draw(found, f"{given.gate} minus {given.rule}", given.out)
    for condition, value in found.items():
        print(f"{condition}: {value:+.1f}")


if __name__ == "__main__":
    main()
