"""What guessing reaches on test clips, and warnings for results that are not better.

Intervals come from a bootstrap over groups. With few clips a bootstrap is too narrow, so they are widened: accuracy
to at least Wilson's interval, AUC to at least the interval of a random order (Mann and Whitney 1947).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .classification import wilson_interval

Array = NDArray[Any]
# An untrained network with a score above this solves the task without pretraining.
SOLVED = 0.9


@dataclass(frozen=True)
class Figure:
    """A test result with its 95 % interval and its chance level."""

    name: str
    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    chance: float
    """What guessing reaches."""

    @property
    def at_chance(self) -> bool:
        """Whether chance lies inside or above the interval. False if the value is not finite."""
        return bool(np.isfinite(self.value) and self.low <= self.chance)

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}], chance {self.chance:.3f}"


def majority_share(labels: Array) -> float:
    """Returns the accuracy of always predicting the most frequent class of labels (n,). NaN without labels.

    >>> majority_share(np.array([0, 0, 0, 1]))
    0.75
    """
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels)) if len(labels) else float("nan")


def action_chances(labels: Array, classes: int) -> dict[str, float]:
    """Returns what the best constant prediction reaches for each metric of `action_metrics`, for labels (n,)."""
    counts = np.sort(np.bincount(labels, minlength=classes))[::-1]
    found = {"accuracy": majority_share(labels)}
    if classes > 5:
        found["top5_accuracy"] = float(counts[:5].sum() / counts.sum())
    return found | {"mean_class_accuracy": float(1 / np.count_nonzero(counts))}


def violence_chances(positive: Array) -> dict[str, float]:
    """Returns the chance level of the metrics of `violence_metrics`, for a truth (n,) of 0 and 1.

    - `accuracy`: the share of the more frequent class.
    - `auc`: one half.
    - `average_precision`: the share of the positive class.
    - `f1`: the F1 of predicting positive for every clip.

    Recall has no chance level: it depends on the threshold alone.
    """
    share = float(np.mean(positive))
    chances = {"accuracy": max(share, 1 - share), "auc": 0.5, "average_precision": share}
    return chances | {"f1": 2 * share / (1 + share)}


def multilabel_chances(truth: Array) -> dict[str, float]:
    """Returns the chance level of the metrics of `multilabel_metrics`, for a truth (n, C) of 0 and 1.

    - `mean_average_precision`: the mean share of the classes that occur.
    - `micro_f1`, `macro_f1`: the F1 of predicting every class for every clip.
    """
    shares = np.asarray(truth).mean(axis=0)
    occurring = shares[shares > 0]
    return {
        "mean_average_precision": float(occurring.mean()) if len(occurring) else float("nan"),
        "micro_f1": float(2 * shares.sum() / (shares.sum() + len(shares))),
        "macro_f1": float((2 * shares / (1 + shares)).mean()),
    }


def accuracy_figure(name: str, value: float, low: float, high: float, chance: float, clips: int) -> Figure:
    """Returns the figure of an accuracy over `clips` clips. Its interval is at least as wide as Wilson's."""
    if clips and np.isfinite(value):
        lowest, highest = wilson_interval(round(value * clips), clips)
        low, high = min(low, lowest), max(high, highest)
    return Figure(name, value, low, high, chance)


def auc_figure(value: float, low: float, high: float, positive: Array) -> Figure:
    """Returns the figure of an AUC. Its interval is at least as wide as that of a random order of the clips.

    - `positive` (n,): the binary truth.
    """
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
    """Returns the figures of the metrics that have both an interval and a chance level.

    - `labels`: class numbers (n,), or 0 and 1 (n, C).
    - `positive`: the class that the AUC refers to.
    """
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
    """Returns a warning that names the figures which are not better than chance, or nothing.

    - `remedy`: what the user should change, with the configuration key.
    """
    low = [figure for figure in figures if figure.at_chance]
    if not low:
        return []
    if len(low) < len(figures) and all(figure.name == "accuracy" for figure in low):
        better = ", ".join(figure.name for figure in figures if not figure.at_chance)
        return [
            f"always predicting the most frequent class is as good on test clips ({low[0]}), but {better} is above "
            "chance: weight the classes equally (balanced=true), or choose a threshold (hold_out=true)"
        ]
    return [f"test results are not better than chance ({'; '.join(map(str, low))}): {remedy}"]


def untrained_warning(trained: Sequence[Figure], untrained: Sequence[Figure]) -> list[str]:
    """Returns a warning if the same network without training does as well on the test clips, or nothing.

    `trained` and `untrained` hold the same features from both networks. The feature that scores best untrained is
    checked, if that score is above chance. The warning appears if the untrained score is above 0.9, or not below the
    interval of the trained score.
    """
    pairs = [(t, u) for t, u in zip(trained, untrained, strict=True) if np.isfinite(u.value) and not u.at_chance]
    if not pairs:
        return []
    best, control = max(pairs, key=lambda pair: pair[1].value)
    told = f"({control}; pretrained {best.value:.3f} [{best.low:.3f}, {best.high:.3f}])"
    if control.value > SOLVED:
        return [
            f"an untrained network already solves this label {told}: appearance alone, such as background, camera "
            "or light, predicts it, so the score says little about the encoder; keep each camera or place on one "
            "side of the split (--group COLUMN), or probe another label (--label)"
        ]
    if best.low <= control.value:
        return [
            f"pretraining gives no measurable gain {told}: random features predict the label as well; "
            "pretrain longer (train.steps) or on more clips, or probe another label (--label)"
        ]
    return []
