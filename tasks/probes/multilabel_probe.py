"""The linear probe and kNN for clips with several classes: one logistic regression per class."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from ..features.extract import Features
from ..metrics.chance import Figure
from ..metrics.classification import average_precisions, bootstrap_interval
from ..metrics.fold_means import Folds
from ..metrics.multilabel import class_thresholds, mean_average_precision, multilabel_metrics, rarest
from ..splits.splits import Split
from .knn import knn_scores
from .linear_probe import STRENGTHS, inner_folds, scale_of

Array = NDArray[Any]


@dataclass(frozen=True)
class MultilabelProbe:
    """A fitted probe with `scores = sigmoid((x - mean) / std @ weight + bias)`."""

    mean: NDArray[np.float64]
    """Mean of each feature (D,)."""
    std: NDArray[np.float64]
    """Scale of each feature (D,)."""
    weight: NDArray[np.float64]
    """Weights (D, C)."""
    bias: NDArray[np.float64]
    """Biases (C,)."""
    strength: float
    """C, the inverse of the regulariser, the same for all classes."""
    thresholds: NDArray[np.float64]
    """Threshold of best F1 per class (C,), chosen on held-out clips."""

    def scores(self, features: Array) -> NDArray[np.float64]:
        """Returns probabilities (n, C) of features (n, D)."""
        return _sigmoid((features - self.mean) / self.std @ self.weight + self.bias)


@dataclass(frozen=True)
class MultilabelRow:
    """Result of one feature over the test clips of all splits that have it."""

    feature: str
    mean_average_precision: float
    """Mean average precision of the linear probe."""
    low: float
    """Lower end of its 95 % interval, from a bootstrap over groups."""
    high: float
    """Upper end of the interval."""
    knn: float
    """Mean average precision of the nearest neighbours."""
    micro_f1: float
    """Micro F1 at thresholds chosen without the test clips."""
    macro_f1: float
    """Macro F1 at the same thresholds."""
    clips: int
    """Number of scored clips."""
    precisions: list[float]
    """Average precision by class."""
    chance: float
    """Chance level of the mean average precision: the mean share of the classes."""

    def figure(self) -> Figure:
        """Returns the probe's mean average precision with its chance level."""
        return Figure(self.feature, self.mean_average_precision, self.low, self.high, self.chance)


@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_multilabel_probe(
    features: Array,
    truth: Array,
    *,
    validation: tuple[Array, Array] | None = None,
    groups: Sequence[str] | Array | None = None,
) -> MultilabelProbe:
    """Fits one logistic regression per class that minimises `C sum cross-entropy + |w|^2 / 2`, by L-BFGS.

    All classes share one C from `STRENGTHS`: the one with the best mean average precision on held-out clips. The
    thresholds are chosen on the same held-out clips. The final fit uses all clips.

    - `features` (n, D), `truth` (n, C) of 0 and 1: training clips.
    - `validation`: features and truth of the held-out clips. None: three inner folds of the training clips.
    - `groups` (n,): groups that the inner folds keep together.
    """
    if validation is not None:
        pairs = [((features, truth), validation)]
    else:
        strata = np.array([-1 if row is None else row for row in rarest(truth)]) + 1
        folds = inner_folds(strata, groups)
        pairs = [((features[fit], truth[fit]), (features[held], truth[held])) for fit, held in folds]
    strength, thresholds = 1.0, np.full(truth.shape[1], 0.5)
    if pairs:
        held_truth = np.concatenate([held for _, (_, held) in pairs])
        tried = np.concatenate([_candidates(*fit, held) for fit, (held, _) in pairs], axis=1)
        judged = [mean_average_precision(scores, held_truth) for scores in tried]
        best = int(np.argmax(np.nan_to_num(judged)))
        strength, thresholds = STRENGTHS[best], class_thresholds(tried[best], held_truth)
    if validation is not None:
        features, truth = np.concatenate([features, validation[0]]), np.concatenate([truth, validation[1]])
    return MultilabelProbe(*_fit(features, truth, strength), strength, thresholds)


def probe_multilabel(
    features: Features, truth: NDArray[np.int64], splits: Sequence[Split], groups: Sequence[str] | None = None
) -> list[MultilabelRow]:
    """Probes `fused`, every modality and `concat`: fits on the training clips of each split, scores its test clips.

    The row of a modality counts only the clips that have it. Average precisions are averaged over the splits where
    the class occurs. F1 counts the test clips of all splits.

    - `truth` (n, C): 0 and 1.
    - `groups` (n,): groups for inner folds and bootstrap. None: each clip is its own group.
    """
    names = None if groups is None else np.array(groups)
    return [_probe(name, features, truth, splits, names) for name in ("fused", *features.modalities, "concat")]


def _probe(
    name: str, features: Features, truth: NDArray[np.int64], splits: Sequence[Split], groups: Array | None
) -> MultilabelRow:
    values, present = features.values[name], features.present[name]
    tested: list[Array] = []
    found: list[tuple[Array, Array, Array]] = []
    folds: list[str] = []
    for split in splits:
        train, validation, test = (part[present[part]] for part in (split.train, split.validation, split.test))
        if not len(test) or len(train) < 2:
            continue
        held = (values[validation], truth[validation]) if len(validation) else None
        units = None if groups is None else groups[train]
        probe = fit_multilabel_probe(values[train], truth[train], validation=held, groups=units)
        chances = probe.scores(values[test])
        near = knn_scores(values[train], truth[train], values[test], truth.shape[1])
        tested.append(test)
        found.append((chances, chances - probe.thresholds, near))
        folds += [split.name] * len(test)
    if not tested:
        nothing = float("nan")
        return MultilabelRow(
            *(name, nothing, nothing, nothing, nothing, nothing, nothing), 0, [nothing] * truth.shape[1], nothing
        )
    scored = np.concatenate(tested)
    scores, margins, neighbours = (np.concatenate(parts) for parts in zip(*found, strict=True))
    units = (np.arange(len(truth)).astype(str) if groups is None else groups)[scored].tolist()
    right, divided = truth[scored], Folds.of(folds, len(scored))

    def by_class(chances: Array, rows: Array | None = None) -> NDArray[np.float64]:
        return divided.mean(lambda part: average_precisions(chances[part], right[part]), rows)

    low, high = bootstrap_interval(lambda rows: _mean(by_class(scores, rows)), units, draws=500)
    # Subtracting each split's thresholds makes the scores of all splits comparable.
    judged = multilabel_metrics(margins, right, 0.0)
    precisions = by_class(scores)
    shares = divided.mean(lambda part: np.where(right[part].any(axis=0), right[part].mean(axis=0), np.nan))
    return MultilabelRow(
        name,
        _mean(precisions),
        low,
        high,
        _mean(by_class(neighbours)),
        judged["micro_f1"],
        judged["macro_f1"],
        len(scored),
        precisions.tolist(),
        _mean(shares),
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Returns the mean of the finite values, NaN without any."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _candidates(features: Array, truth: Array, held: Array) -> NDArray[np.float64]:
    """Returns probabilities (strengths, m, C) of held-out clips (m, D).

    Each solution starts from the previous one.
    """
    mean, std = scale_of(features)
    # Single precision and a loose tolerance suffice to choose C.
    scaled, rows = (((part - mean) / std).astype(np.float32) for part in (features, held))
    scores = np.empty((len(STRENGTHS), len(held), truth.shape[1]))
    for number, labels in enumerate(truth.T):
        if labels.min() == labels.max():
            scores[:, :, number] = _sigmoid(np.array(_constant(labels)))
            continue
        model = LogisticRegression(warm_start=True, tol=1e-4, max_iter=1000)
        for place, strength in enumerate(STRENGTHS):
            model.set_params(C=strength)
            with warnings.catch_warnings():
                # A weakly regularised fit may not converge. It is still scored as a candidate.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(scaled, labels)
            scores[place, :, number] = model.predict_proba(rows)[:, 1]
    return scores


def _constant(labels: Array) -> float:
    """Returns the logit of a class that all fitted clips have, or none of them."""
    return 20.0 if labels[0] else -20.0


def _fit(features: Array, truth: Array, strength: float) -> tuple[Array, Array, Array, Array]:
    """Returns mean, scale, weights and biases.

    A class that all fitted clips have, or none of them, gets a constant prediction.
    """
    mean, std = scale_of(features)
    scaled = (features - mean) / std
    weight, bias = np.zeros((features.shape[1], truth.shape[1])), np.zeros(truth.shape[1])
    for number, labels in enumerate(truth.T):
        if labels.min() == labels.max():
            bias[number] = _constant(labels)
            continue
        model = LogisticRegression(C=strength, tol=1e-4, max_iter=5000).fit(scaled, labels)
        weight[:, number], bias[number] = model.coef_[0], model.intercept_[0]
    return mean, std, weight, bias


def _sigmoid(logits: Array) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
