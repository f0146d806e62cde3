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
    """A fitted probe with `scores = softmax((x - mean) / std @ weight + bias)`."""

    mean: NDArray[np.float64]
    """Mean of each feature (D,)."""
    std: NDArray[np.float64]
    """Scale of each feature (D,)."""
    weight: NDArray[np.float64]
    """Weights (D, C)."""
    bias: NDArray[np.float64]
    """Biases (C,). Minus infinity for a class without fitted clips."""
    strength: float
    """C, the inverse of the regulariser."""

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns class probabilities (n, C) of features (n, D)."""
        logits = (features - self.mean) / self.std @ self.weight + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        return shares / shares.sum(axis=1, keepdims=True)


# Threads slow down such small matrix products, up to ten times on busy cores.
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
    """Fits the probe that minimises `C sum cross-entropy + |W|^2 / 2`, by L-BFGS. Deterministic.

    This is the protocol of CLIP (Radford et al. 2021). Features are scaled to unit variance on the fitted clips
    alone. C is chosen from `STRENGTHS` by the accuracy on held-out clips. Ties go to the stronger regulariser. The
    final fit uses training and validation clips.

    - `features` (n, D), `labels` (n,): training clips.
    - `classes`: number of classes.
    - `validation`: features (m, D) and labels (m,) that choose C. None: three inner folds of the training clips.
    - `groups` (n,): groups that the inner folds keep together.
    - `scale_by` (m, D): clips that determine the scale instead, labelled or not. A few labelled clips give a poor
      scale.

    Raises `ValueError` without clips, for unequal lengths, features that are not finite, and labels outside
    0..classes-1.
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
    # Without held-out clips, or if none is right, use the common default of 1.
    strength = STRENGTHS[int(right.argmax())] if right.any() else 1.0
    mean, std = scale or scale_of(features)
    weight, bias = np.zeros((features.shape[1], classes)), np.full(classes, -np.inf)
    known = np.unique(labels)
    if len(known) == 1:
        bias[known] = 0.0
    else:
        model = LogisticRegression(C=strength, tol=1e-5, max_iter=5000)
        model.fit((features - mean) / std, labels)
        # With two classes, scikit-learn fits the logit of the second class. The first is zero.
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
    """Returns the number of correct held-out clips for each strength. Each solution starts from the previous one."""
    if len(np.unique(labels)) < 2:
        return np.full(len(STRENGTHS), int((held_labels == labels[0]).sum()))
    mean, std = scale or scale_of(features)
    # Single precision and a loose tolerance suffice to choose C: three times faster, same choices.
    scaled, held = (((part - mean) / std).astype(np.float32) for part in (features, held_features))
    model = LogisticRegression(warm_start=True, tol=1e-4, max_iter=1000)
    right = []
    for strength in STRENGTHS:
        model.set_params(C=strength)
        with warnings.catch_warnings():
            # A weakly regularised fit may not converge. It is still scored as a candidate.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaled, labels)
        right.append(int(np.sum(model.predict(held) == held_labels)))
    return np.array(right)


def scale_of(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns mean and standard deviation (D,) of features (n, D). A constant column gets a deviation of one."""
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    # Columns that vary only by single-precision rounding count as constant. Scaled to unit variance, a tiny shift in
    # the test clips would dominate all other columns.
    return mean, np.where(std > 1e-8 + 1e-6 * np.abs(mean), std, 1.0)


def inner_folds(
    labels: NDArray[np.int64], groups: Sequence[str] | NDArray | None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Returns row numbers (fitted, held out) for each inner fold.

    Empty if there are fewer than two clips or groups.
    """
    units = len(labels) if groups is None else len(np.unique(np.asarray(groups)))
    folds = min(INNER_FOLDS, units)
    if folds < 2:
        return []
    commonest = int(np.bincount(labels).max())
    with warnings.catch_warnings():
        # A class with fewer clips than folds is missing from some folds. C can still be chosen.
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
        raise ValueError(f"{len(features)} rows of features, but {len(labels)} labels")
    if not np.isfinite(features).all():
        raise ValueError("some features are not finite")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels range from {labels.min()} to {labels.max()}, but there are {classes} classes")
