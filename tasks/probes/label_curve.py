"""Accuracy with few labels, over the splits of a probe: label-fraction curves and few-shot episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..features.extract import Features
from ..metrics.chance import majority_share
from ..splits.splits import Split
from .label_fraction import FRACTIONS, able_classes, few_shot_accuracy, label_fraction_curve

WAYS, SHOTS = 5, (1, 5)


DRAWS = 5


@dataclass(frozen=True)
class CurveRow:
    """Accuracy of one feature by share of the labels, over the test clips that have it."""

    feature: str
    fractions: list[float]
    """Shares of the training labels."""
    mean: list[float]
    """Accuracy by share: mean over draws, then over splits weighted by their test clips."""
    std: list[float]
    """Standard deviation over draws by share, averaged over splits in the same way."""
    clips: list[float]
    """Number of labelled clips by share, averaged over splits in the same way."""
    ways: int
    """Number of classes in a few-shot episode. Chance in an episode is `1 / ways`."""
    few_shot: dict[int, tuple[float, float]]
    """By number of shots: accuracy of the episodes, and half the width of its 95 % interval."""
    chance: float
    """Accuracy of always predicting the most frequent class of the test clips."""


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
    """Returns one curve each for `fused`, every modality and `concat`.

    Probes are fitted on a share of the training clips and scored on the test clips. Validation clips are not used:
    their labels would exceed the share. Few-shot episodes draw from the test clips of all splits. Labelled clips and
    queries are from different groups. Episodes are omitted if too few classes have enough clips and groups.

    - `labels` (n,): class numbers.
    - `groups` (n,): groups that inner folds keep together. None: each clip is its own group.
    - `draws`: number of random subsets per share.
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
        named = (np.arange(len(labels)).astype(str) if units is None else units)[tested]
        few = {}
        for shots in SHOTS:
            if len(able_classes(labels[tested], shots, named)) >= ways:
                found = few_shot_accuracy(values[tested], labels[tested], ways, shots, seed=seed, groups=named)
                few |= {} if found is None else {shots: found}
        chance = majority_share(labels[tested])
        rows.append(CurveRow(name, list(fractions), mean.tolist(), std.tolist(), clips.tolist(), ways, few, chance))
    return rows
