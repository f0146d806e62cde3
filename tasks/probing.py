"""The linear probe and kNN of frozen features, each modality beside the fused embedding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .features import Features
from .knn import knn_scores
from .linear_probe import fit_linear_probe
from .metrics import bootstrap_interval, roc_auc
from .splits import Split


@dataclass(frozen=True)
class ProbeRow:
    """One feature's result over the test clips of all splits that have it.

    `low`, `high`: 95 % interval of the linear probe's accuracy, bootstrapped over groups; `auc` for two classes, of
    the second in sorted order unless told otherwise; `clips`: how many were scored.
    """

    feature: str
    accuracy: float
    low: float
    high: float
    knn: float
    auc: float | None
    clips: int


def probe_features(
    features: Features,
    labels: NDArray[np.int64],
    classes: int,
    splits: Sequence[Split],
    groups: Sequence[str] | None = None,
    positive: int = 1,
) -> list[ProbeRow]:
    """Probes `fused`, every modality and `concat`, fitted on each split's train clips and scored on its test clips.

    A modality's row counts only the clips that have it. The regulariser is chosen on the validation clips, or by
    inner folds of the training clips. Test predictions are pooled over splits.
    """
    return [
        _probe(name, features, labels, classes, splits, groups, positive)
        for name in ("fused", *features.modalities, "concat")
    ]


def _probe(
    name: str,
    features: Features,
    labels: NDArray[np.int64],
    classes: int,
    splits: Sequence[Split],
    groups: Sequence[str] | None,
    positive: int,
) -> ProbeRow:
    values, present = features.values[name], features.present[name]
    scores = np.full((len(labels), classes), np.nan)
    neighbours = np.full(len(labels), -1)
    names = None if groups is None else np.array(groups)
    for split in splits:
        train, validation, test = (part[present[part]] for part in (split.train, split.validation, split.test))
        if not len(test) or len(np.unique(labels[train])) < 2:
            continue
        probe = fit_linear_probe(
            values[train],
            labels[train],
            classes,
            validation=(values[validation], labels[validation]) if len(validation) else None,
            groups=None if names is None else names[train].tolist(),
        )
        scores[test] = probe.scores(values[test])
        neighbours[test] = knn_scores(values[train], labels[train], values[test], classes).argmax(axis=1)
    scored = np.flatnonzero(neighbours >= 0)
    if not len(scored):
        return ProbeRow(name, float("nan"), float("nan"), float("nan"), float("nan"), None, 0)
    right = scores[scored].argmax(axis=1) == labels[scored]
    units = (np.arange(len(labels)).astype(str) if names is None else names)[scored].tolist()
    low, high = bootstrap_interval(lambda rows: float(right[rows].mean()), units)
    auc = roc_auc(scores[scored, positive], labels[scored] == positive) if classes == 2 else None
    return ProbeRow(
        name, float(right.mean()), low, high, float((neighbours[scored] == labels[scored]).mean()), auc, len(scored)
    )
