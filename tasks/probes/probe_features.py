"""Linear probe and kNN on frozen features, for each modality and the fused embedding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..features.extract import Features
from ..metrics.chance import Figure, accuracy_figure, majority_share
from ..metrics.classification import bootstrap_interval, roc_auc
from ..metrics.fold_means import Folds
from ..splits.splits import Split
from .knn import knn_scores
from .linear_probe import LinearProbe, fit_linear_probe, inner_folds
from .sgd_probe import SgdProbe, fit_sgd_probe

Array = NDArray[Any]
Probe = LinearProbe | SgdProbe
Fit = Callable[[Array, Array, int, tuple[Array, Array] | None, Sequence[str] | None], Probe]


@dataclass(frozen=True)
class ProbeRow:
    """Result of one feature over the test clips of all splits that have it."""

    feature: str
    accuracy: float
    """Accuracy of the linear probe."""
    low: float
    """Lower end of its 95 % interval, from a bootstrap over groups."""
    high: float
    """Upper end of the interval."""
    knn: float
    """Accuracy of the nearest neighbours."""
    auc: float | None
    """ROC AUC of the positive class of two, averaged over splits. None for more classes."""
    clips: int
    """Number of scored clips."""
    chance: float
    """Accuracy of always predicting the most frequent class of these clips."""

    def figure(self) -> Figure:
        """Returns the linear probe's accuracy with its chance level."""
        return accuracy_figure(self.feature, self.accuracy, self.low, self.high, self.chance, self.clips)


def probe_features(
    features: Features,
    labels: NDArray[np.int64],
    classes: int,
    splits: Sequence[Split],
    groups: Sequence[str] | None = None,
    positive: int = 1,
    solver: str = "lbfgs",
) -> list[ProbeRow]:
    """Probes `fused`, every modality and `concat`: fits on the training clips of each split, scores its test clips.

    The row of a modality counts only the clips that have it. Hyperparameters are chosen on the validation clips, or
    by inner folds of the training clips. Accuracies count the test clips of all splits. The AUC is averaged over
    splits.

    - `labels` (n,): class numbers.
    - `groups` (n,): groups for inner folds and bootstrap. None: each clip is its own group.
    - `positive`: with two classes, the class that the AUC refers to.
    - `solver`: one of `SOLVERS`.
    """
    fit = SOLVERS[solver]
    return [
        _probe(name, features, labels, classes, splits, groups, positive, fit)
        for name in ("fused", *features.modalities, "concat")
    ]


def _fit_lbfgs(
    values: Array, labels: Array, classes: int, validation: tuple[Array, Array] | None, groups: Sequence[str] | None
) -> Probe:
    return fit_linear_probe(values, labels, classes, validation=validation, groups=groups)


def _fit_sgd(
    values: Array, labels: Array, classes: int, validation: tuple[Array, Array] | None, groups: Sequence[str] | None
) -> Probe:
    if validation is None:
        # One inner fold chooses the learning rate. Its clips are not used for fitting.
        fit, held = (inner_folds(labels, groups) or [(np.arange(len(labels)),) * 2])[0]
        validation, values, labels = (values[held], labels[held]), values[fit], labels[fit]
    return fit_sgd_probe(values, labels, classes, validation)


SOLVERS = {"lbfgs": _fit_lbfgs, "sgd": _fit_sgd}


def _probe(
    name: str,
    features: Features,
    labels: NDArray[np.int64],
    classes: int,
    splits: Sequence[Split],
    groups: Sequence[str] | None,
    positive: int,
    fit: Fit,
) -> ProbeRow:
    values, present = features.values[name], features.present[name]
    tested: list[Array] = []
    found: list[Array] = []
    neighbours: list[Array] = []
    folds: list[str] = []
    names = None if groups is None else np.array(groups)
    for split in splits:
        train, validation, test = (part[present[part]] for part in (split.train, split.validation, split.test))
        if not len(test) or len(np.unique(labels[train])) < 2:
            continue
        held = (values[validation], labels[validation]) if len(validation) else None
        probe = fit(values[train], labels[train], classes, held, None if names is None else names[train].tolist())
        tested.append(test)
        found.append(probe.scores(values[test]))
        neighbours.append(knn_scores(values[train], labels[train], values[test], classes).argmax(axis=1))
        folds += [split.name] * len(test)
    if not tested:
        nothing = float("nan")
        return ProbeRow(name, nothing, nothing, nothing, nothing, None, 0, nothing)
    scored, scores = np.concatenate(tested), np.concatenate(found)
    truth = labels[scored]
    right = scores.argmax(axis=1) == truth
    units = (np.arange(len(labels)).astype(str) if names is None else names)[scored].tolist()
    low, high = bootstrap_interval(lambda rows: float(right[rows].mean()), units)
    auc = None
    if classes == 2:
        divided = Folds.of(folds, len(scored))
        auc = float(divided.mean(lambda rows: roc_auc(scores[rows, positive], truth[rows] == positive)))
    near = float((np.concatenate(neighbours) == truth).mean())
    return ProbeRow(name, float(right.mean()), low, high, near, auc, len(scored), majority_share(truth))
