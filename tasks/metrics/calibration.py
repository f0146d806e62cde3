"""Whether a probability means what it says, and a temperature that mends it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[Any]


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = 15) -> float:
    """`sum_b n_b / n |accuracy_b - confidence_b|` over equal-width bins of the winning probability (Guo et al. 2017).

    Probabilities (n, C), labels (n,). Raises `ValueError` for no rows.
    """
    if not len(labels):
        raise ValueError("no samples to score")
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / counts.sum())


def fit_temperature(probabilities: Array, labels: Array) -> float:
    """The T > 0 at which `softmax(log p / T)` gives labels (n,) of held-out clips the least cross-entropy.

    One number, fitted on held-out clips: it changes no decision and no ranking of classes (Guo et al. 2017). The
    truth of a clip counts as `(n + 1) / (n + 2)`, the rest is shared by the other classes (Platt 1999): a few clips
    that are all right do not ask for certainty. Raises `ValueError` for no rows.
    """
    if not len(labels):
        raise ValueError("no samples to fit")
    count, classes = probabilities.shape
    targets = np.full((count, classes), 1 / (count + 2) / max(classes - 1, 1))
    targets[np.arange(count), labels] = (count + 1) / (count + 2)

    def loss(log_temperature: float) -> float:
        scaled = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.maximum(scaled, 1e-300))).sum(axis=1).mean())

    # From a twentieth to twenty.
    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))  # pyright: ignore[reportAttributeAccessIssue]


def apply_temperature(probabilities: Array, temperature: float) -> NDArray[np.float64]:
    """`softmax(log p / T)` of probabilities (n, C)."""
    logits = np.log(np.maximum(probabilities, 1e-30)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
