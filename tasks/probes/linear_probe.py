"""The linear probe: multinomial logistic regression on frozen features, solved to its optimum."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

STRENGTHS = tuple(10.0**power for power in range(-5, 3))
INNER_FOLDS = 3


@dataclass(frozen=True)
class LinearProbe:
    """`scores = softmax((x - mean) / std @ weight + bias)`: mean, std (D,), weight (D, C), bias (C,).

    `strength` is C, the inverse of the regulariser. A class that was not among the fitted clips has bias -inf.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Class probabilities (n, C) of features (n, D)."""
        logits = (features - self.mean) / self.std @ self.weight + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        return shares / shares.sum(axis=1, keepdims=True)


# Products this small take longer to share out than to compute: with the cores busy, ten times as long.
@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_linear_probe(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: int,
    *,
    validation: tuple[NDArray[np.floating], NDArray[np.int64]] | None = None,
    groups: Sequence[str] | NDArray | None = None,
    scale_by: NDArray[np.floating] | None = None,
) -> LinearProbe:
    """Minimises `C sum cross-entropy + |W|^2 / 2` by L-BFGS on features (n, D) and labels (n,); deterministic.

    The protocol of CLIP (Radford et al. 2021): features are scaled to unit variance on the fitted clips alone; C is
    chosen from `STRENGTHS` by accuracy on `validation`, or by three inner folds of the training clips that keep
    `groups` together; ties go to the stronger regulariser. The final fit uses training and validation clips. With
    `scale_by` (m, D) those clips set the scale, labelled or not: from a handful of labelled ones it is an accident.
    Raises `ValueError` for no clips, features that are not finite, and labels outside 0..classes-1.
    """
    _check(features, labels, classes)
    scale = None if scale_by is None else scale_of(scale_by)
    if validation is not None:
        _check(*validation, classes)
        right = _right_answers(features, labels, *validation, scale)
        features = np.concatenate([features, validation[0]])
        labels = np.concatenate([labels, validation[1]])
    else:
        right = np.zeros(len(STRENGTHS), np.int64)
        for fit, held in inner_folds(labels, groups):
            right += _right_answers(features[fit], labels[fit], features[held], labels[held], scale)
    # Nothing to choose by: one, the usual default.
    strength = STRENGTHS[int(right.argmax())] if right.any() else 1.0
    mean, std = scale or scale_of(features)
    weight, bias = np.zeros((features.shape[1], classes)), np.full(classes, -np.inf)
    known = np.unique(labels)
    if len(known) == 1:
        bias[known] = 0.0
    else:
        model = LogisticRegression(C=strength, tol=1e-5, max_iter=5000)
        model.fit((features - mean) / std, labels)
        # Of two classes scikit-learn solves for the second's logit only; the first's is zero.
        solved = known[1:] if len(known) == 2 else known
        bias[known] = 0.0
        weight[:, solved], bias[solved] = model.coef_.T, model.intercept_
    return LinearProbe(mean, std, weight, bias, strength)


def _right_answers(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    held_features: NDArray[np.floating],
    held_labels: NDArray[np.int64],
    scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> NDArray[np.int64]:
    """Right answers on held-out clips for every strength, each solution the start of the next."""
    if len(np.unique(labels)) < 2:
        return np.full(len(STRENGTHS), int((held_labels == labels[0]).sum()))
    mean, std = scale or scale_of(features)
    # Single precision and a loose tolerance, to choose by: three times faster, the same choices.
    scaled, held = (((part - mean) / std).astype(np.float32) for part in (features, held_features))
    model = LogisticRegression(warm_start=True, tol=1e-4, max_iter=1000)
    right = []
    for strength in STRENGTHS:
        model.set_params(C=strength)
        with warnings.catch_warnings():
            # An almost free fit may not settle in time; as a candidate it counts for what it scores.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaled, labels)
        right.append(int(np.sum(model.predict(held) == held_labels)))
    return np.array(right)


def scale_of(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation (D,) of features (n, D); the deviation of a constant column is one."""
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    # A column constant but for single-precision rounding: scaled to unit variance, a shift of the tested clips too
    # small to matter would drown every other column.
    return mean, np.where(std > 1e-8 + 1e-6 * np.abs(mean), std, 1.0)


def inner_folds(
    labels: NDArray[np.int64], groups: Sequence[str] | NDArray | None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Fitted and held-out row numbers; none where the clips are too few or of one group."""
    units = len(labels) if groups is None else len(np.unique(np.asarray(groups)))
    folds = min(INNER_FOLDS, units)
    if folds < 2:
        return []
    commonest = int(np.bincount(labels).max())
    with warnings.catch_warnings():
        # A class rarer than the folds is missing from some of them, which the choice of C survives.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        if commonest < folds:
            splits = KFold(folds, shuffle=True, random_state=0).split(labels)
        elif groups is None:
            splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels)
        else:
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
            splits = splitter.split(labels, labels, np.asarray(groups))
        return [(fit, held) for fit, held in splits if len(fit) and len(held)]


def _check(features: NDArray[np.floating], labels: NDArray[np.int64], classes: int) -> None:
    if not len(features):
        raise ValueError("no samples to fit")
    if len(features) != len(labels):
        raise ValueError(f"{len(features)} rows of features, {len(labels)} labels")
    if not np.isfinite(features).all():
        raise ValueError("some features are not finite")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, there are {classes} classes")
