"""How much each modality's frozen features tell of a label, judged on clips that did not fit the judge."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..features.extract import Features
from ..metrics.classification import roc_auc
from .linear_probe import fit_linear_probe, inner_folds


def modality_evidence(
    features: Features, labels: NDArray[np.int64], classes: int, groups: Sequence[str] | None
) -> dict[str, float]:
    """By modality the cross-validated AUC of a linear probe on its features; .5 is chance.

    Three folds of the clips that have the modality, which keep `groups` (n,) together, are each scored by a probe of
    the others. The AUC is that of every class against the rest, averaged over the classes. Labels (n,). A modality
    that too few clips have to be divided has .5: nothing is known of it.
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
    # A probe's scores are comparable within its fold only, so that is where clips are ranked.
    areas = []
    for fit, held in inner_folds(labels, units):
        probe = fit_linear_probe(values[fit], labels[fit], classes, groups=None if units is None else units[fit])
        scores = probe.scores(values[held])
        by_class = [roc_auc(scores[:, number], labels[held] == number) for number in range(classes)]
        known = [area for area in by_class if np.isfinite(area)]
        areas += [float(np.mean(known))] if known else []
    return float(np.mean(areas)) if areas else 0.5


def votes_of(evidence: dict[str, float]) -> dict[str, float]:
    """The weight of every modality: `2 AUC - 1`, none at chance and one where every pair is told apart.

    Equal weights where no modality is above chance: there is nothing to prefer one by.
    """
    votes = {name: max(2 * area - 1, 0.0) for name, area in evidence.items()}
    return votes if any(votes.values()) else dict.fromkeys(votes, 1.0)
