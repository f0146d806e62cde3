"""How few labels frozen features need, over the splits of a probe: the label-fraction curve and few-shot episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..features.extract import Features
from ..metrics.chance import majority_share
from ..splits.splits import Split
from .label_fraction import FRACTIONS, few_shot_accuracy, label_fraction_curve

WAYS, SHOTS = 5, (1, 5)


DRAWS = 5


@dataclass(frozen=True)
class CurveRow:
    """One feature's accuracy by share of the labels; where a modality is missing, only the clips that have it count.

    `mean`, `std` over draws of the labelled clips, and `clips`, how many those are, are averaged over splits by their
    test clips; `few_shot`: accuracy of episodes by shots, of `ways` classes, and half its 95 % interval, where
    guessing reaches one in the ways; `chance`: the accuracy of always naming the commonest class of the test clips.
    """

    feature: str
    fractions: list[float]
    mean: list[float]
    std: list[float]
    clips: list[float]
    ways: int
    few_shot: dict[int, tuple[float, float]]
    chance: float


def label_curves(
    features: Features,
    labels: NDArray[np.int64],
    classes: int,
    splits: Sequence[Split],
    groups: Sequence[str] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[CurveRow]:
    """A curve of `fused`, of every modality and of `concat`: fitted on a share of the train clips, scored on test.

    Validation clips are left out: their labels would be more than the share. Episodes draw from the test clips of
    all splits, which fit nothing; where too few classes have the clips for them, there are none.
    """
    units = None if groups is None else np.array(groups)
    rows = []
    for name in ("fused", *features.modalities, "concat"):
        values, present = features.values[name], features.present[name]
        points, weights = [], []
        for split in splits:
            train, test = split.train[present[split.train]], split.test[present[split.test]]
            if not len(test) or len(np.unique(labels[train])) < 2:
                continue
            named = None if units is None else units[train]
            curve = label_fraction_curve(
                values[train], labels[train], values[test], labels[test], classes, fractions, draws, seed, named
            )
            points.append([(point.mean, point.std, point.clips) for point in curve])
            weights.append(len(test))
        shape = (3, len(fractions))
        mean, std, clips = np.average(points, axis=0, weights=weights).T if points else np.full(shape, np.nan)
        tested = np.unique(np.concatenate([split.test for split in splits]))
        tested = tested[present[tested]]
        ways = min(WAYS, classes)
        few = {
            shots: few_shot_accuracy(values[tested], labels[tested], ways, shots, seed=seed)
            for shots in SHOTS
            if (np.bincount(labels[tested], minlength=classes) > shots).sum() >= ways
        }
        chance = majority_share(labels[tested])
        rows.append(CurveRow(name, list(fractions), mean.tolist(), std.tolist(), clips.tolist(), ways, few, chance))
    return rows
