"""What guessing reaches on test clips, and lines that say where a figure is no better.

Intervals are those of a bootstrap over groups, widened where few clips make a bootstrap too sure: to Wilson's of a
share, and by the deviation that a random order's AUC has (Mann and Whitney 1947).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .classification import wilson_interval

Array = NDArray[Any]
# Above this an untrained network solves the label by itself.
SOLVED = 0.9


@dataclass(frozen=True)
class Figure:
    """A test figure: `value` with its 95 % interval from `low` to `high`, and what guessing reaches."""

    name: str
    value: float
    low: float
    high: float
    chance: float

    @property
    def at_chance(self) -> bool:
        """Whether chance is in the interval or above it; of what is not known, no."""
        return bool(np.isfinite(self.value) and self.low <= self.chance)

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}], chance {self.chance:.3f}"


def majority_share(labels: Array) -> float:
    """The accuracy of always naming the commonest class of labels (n,); NaN without any."""
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels)) if len(labels) else float("nan")


def action_chances(labels: Array, classes: int) -> dict[str, float]:
    """What the best constant answer reaches of `action_metrics`, labels (n,)."""
    counts = np.sort(np.bincount(labels, minlength=classes))[::-1]
    found = {"accuracy": majority_share(labels)}
    if classes > 5:
        found["top5_accuracy"] = float(counts[:5].sum() / counts.sum())
    return found | {"mean_class_accuracy": float(1 / np.count_nonzero(counts))}


def violence_chances(positive: Array) -> dict[str, float]:
    """The same of `violence_metrics`, truth (n,) of 0 and 1: one half for the AUC, the share of the class for the
    average precision, and the F1 of always saying yes. Recall has none: it hangs on the threshold alone."""
    share = float(np.mean(positive))
    chances = {"accuracy": max(share, 1 - share), "auc": 0.5, "average_precision": share}
    return chances | {"f1": 2 * share / (1 + share)}


def multilabel_chances(truth: Array) -> dict[str, float]:
    """The same of `multilabel_metrics`, truth (n, C): the mean share of the classes that occur, and the F1 of naming
    every class of every clip."""
    shares = np.asarray(truth).mean(axis=0)
    occurring = shares[shares > 0]
    return {
        "mean_average_precision": float(occurring.mean()) if len(occurring) else float("nan"),
        "micro_f1": float(2 * shares.sum() / (shares.sum() + len(shares))),
        "macro_f1": float((2 * shares / (1 + shares)).mean()),
    }


def accuracy_figure(name: str, value: float, low: float, high: float, chance: float, clips: int) -> Figure:
    """The share `value` of `clips`; its interval is at least Wilson's."""
    if clips and np.isfinite(value):
        lowest, highest = wilson_interval(round(value * clips), clips)
        low, high = min(low, lowest), max(high, highest)
    return Figure(name, value, low, high, chance)


def auc_figure(value: float, low: float, high: float, positive: Array) -> Figure:
    """An AUC; its interval is at least that of a random order of as many clips."""
    yes = int(np.sum(positive))
    no = len(positive) - yes
    if yes and no:
        half = 1.96 * float(np.sqrt((yes + no + 1) / (12 * yes * no)))
        low, high = min(low, value - half), max(high, value + half)
    return Figure("auc", value, low, high, 0.5)


def headline_figures(
    metrics: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    chances: Mapping[str, float],
    labels: Array,
    positive: int | None,
) -> list[Figure]:
    """Those metrics of fine-tuning that have an interval and a chance; `positive`: the class that the AUC is of."""
    found = []
    for name, (low, high) in intervals.items():
        if name not in chances:
            continue
        if name == "accuracy":
            found.append(accuracy_figure(name, metrics[name], low, high, chances[name], len(labels)))
        elif name == "auc":
            found.append(auc_figure(metrics[name], low, high, labels == positive))
        else:
            found.append(Figure(name, metrics[name], low, high, chances[name]))
    return found


def chance_warning(figures: Sequence[Figure], remedy: str) -> list[str]:
    """A line that names the figures which are no better than chance; `remedy`: what to change, with the key."""
    low = [figure for figure in figures if figure.at_chance]
    if not low:
        return []
    if len(low) < len(figures) and all(figure.name == "accuracy" for figure in low):
        better = ", ".join(figure.name for figure in figures if not figure.at_chance)
        return [
            f"always naming the commonest class is as good on test clips ({low[0]}), though {better} is above "
            "chance: let the classes weigh the same (balanced=true), or judge by a threshold (hold_out=true)"
        ]
    return [f"test clips are told no better than by chance ({'; '.join(map(str, low))}): {remedy}"]


def untrained_warning(trained: Sequence[Figure], untrained: Sequence[Figure]) -> list[str]:
    """A line where the same network untrained tells the test clips as well, or nearly all of them.

    `trained`, `untrained`: the same features under both. Said of the feature that is best untrained, where that is
    above chance: it is above .9, or the trained one's interval holds it.
    """
    pairs = [(t, u) for t, u in zip(trained, untrained, strict=True) if np.isfinite(u.value) and not u.at_chance]
    if not pairs:
        return []
    best, control = max(pairs, key=lambda pair: pair[1].value)
    told = f"({control}; pretrained {best.value:.3f} [{best.low:.3f}, {best.high:.3f}])"
    if control.value > SOLVED:
        return [
            f"an untrained network solves this label already {told}: it can be read off still appearance, such as "
            "background, camera or light, and says little of the encoder; keep one camera or place on one side "
            "(--group COLUMN), or probe another --label"
        ]
    if best.low <= control.value:
        return [
            f"pretraining adds nothing that this probe could measure {told}: random features tell the label as "
            "well; pretrain longer (train.steps) or on more clips, or probe another --label"
        ]
    return []
