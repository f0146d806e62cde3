"""Cross-validated AUC of the frozen features of each modality."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..features.extract import Features
from ..metrics.classification import roc_auc
from .linear_probe import fit_linear_probe, inner_folds


def modality_evidence(
    features: Features, labels: NDArray[np.int64], classes: int, groups: Sequence[str] | None
) -> dict[str, float]:
    """Returns the cross-validated AUC of a linear probe on the features of each modality. Chance is 0.5.

    - `features`: of n clips.
    - `labels` (n,): class numbers.
    - `classes`: number of classes.
    - `groups` (n,): group of each clip. A group is not divided between folds.

    Only clips with the modality count. They are divided into three folds, and each fold is scored by a probe fitted
    on the others. The AUC of each class against the rest is averaged over classes and folds. A modality with too few
    clips for folds gets 0.5.
    """
    return {name: _evidence(features, name, labels, classes, groups) for name in features.modalities}


def _evidence(
    features: Features, name: str, labels: NDArray[np.int64], classes: int, groups: Sequence[str] | None
) -> float:
    rows = np.flatnonzero(features.present[name])
    values, labels = features.values[name][rows], labels[rows]
    units = None if groups is None else np.asarray(groups)[rows]
    if not len(rows):
        return 0.5
    # Scores are comparable only within a fold, so clips are ranked within each fold.
    areas = []
    for fit, held in inner_folds(labels, units):
        probe = fit_linear_probe(values[fit], labels[fit], classes, groups=None if units is None else units[fit])
        scores = probe.scores(values[held])
        by_class = [roc_auc(scores[:, number], labels[held] == number) for number in range(classes)]
        known = [area for area in by_class if np.isfinite(area)]
        areas += [float(np.mean(known))] if known else []
    return float(np.mean(areas)) if areas else 0.5


def votes_of(evidence: dict[str, float]) -> dict[str, float]:
    """Returns a weight per modality, `max(2 AUC - 1, 0)`: zero at chance, one for perfect ranking.

    All weights are one if no modality is above chance.

    >>> votes_of({"rgb": 0.75, "audio": 0.5})
    {'rgb': 0.5, 'audio': 0.0}
    """
    votes = {name: max(2 * area - 1, 0.0) for name, area in evidence.items()}
    return votes if any(votes.values()) else dict.fromkeys(votes, 1.0)
