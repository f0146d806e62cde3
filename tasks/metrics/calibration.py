"""Calibration of class probabilities: its error, and temperature scaling."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[Any]


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = 15) -> float:
    """Returns the expected calibration error, `sum_b n_b / n |accuracy_b - confidence_b|` (Guo et al. 2017).

    Bins of equal width divide the probability of the predicted class.

    - `probabilities` (n, C): rows sum to one.
    - `labels` (n,): class numbers.

    Raises `ValueError` without rows.

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    if not len(labels):
        raise ValueError("no samples to score")
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / counts.sum())


def fit_temperature(probabilities: Array, labels: Array) -> float:
    """Returns the temperature T > 0 that minimises the cross-entropy of `softmax(log p / T)` (Guo et al. 2017).

    A temperature changes no decision and no ranking of classes. Fit it on clips that the classifier was not trained
    on.

    The target of the true class is `(n + 1) / (n + 2)`. The other classes share the rest (Platt 1999). This keeps T
    from collapsing towards zero when a few clips are all classified correctly. T lies between 1/20 and 20.

    - `probabilities` (n, C)
    - `labels` (n,): class numbers.

    Raises `ValueError` without rows.
    """
    if not len(labels):
        raise ValueError("no samples to fit")
    count, classes = probabilities.shape
    targets = np.full((count, classes), 1 / (count + 2) / max(classes - 1, 1))
    targets[np.arange(count), labels] = (count + 1) / (count + 2)

    def loss(log_temperature: float) -> float:
        scaled = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.maximum(scaled, 1e-300))).sum(axis=1).mean())

    # T from about 1/20 to 20.
    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))  # pyright: ignore[reportAttributeAccessIssue]


def apply_temperature(probabilities: Array, temperature: float) -> NDArray[np.float64]:
    """Returns `softmax(log p / T)` of probabilities (n, C)."""
    logits = np.log(np.maximum(probabilities, 1e-30)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
