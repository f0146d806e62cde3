"""Weighted nearest neighbours on frozen features."""

import numpy as np
from numpy.typing import NDArray

# Queries at a time: all similarities of a large test set at once would take gigabytes.
BLOCK = 512


def knn_scores(
    bank: NDArray[np.floating],
    bank_labels: NDArray[np.int64],
    queries: NDArray[np.floating],
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float64]:
    """Class scores (m, C) of queries (m, D) from the k most similar of bank (n, D), summing to one.

    Cosine similarity, each neighbour weighing `exp(similarity / T)`, the protocol of DINO (Caron et al. 2021); k is
    at most the bank's size. With `bank_labels` (n, C) of 0 and 1 every class is scored for itself: the weighted share
    of the neighbours that have it. (lightly's `knn_predict` returns ranked classes only, and raises for a larger k.)
    Raises `ValueError` for an empty bank, k or T that is not positive, features that are not finite, and labels
    outside 0..classes-1.
    """
    if not len(bank):
        raise ValueError("no samples to compare with")
    if len(bank) != len(bank_labels):
        raise ValueError(f"{len(bank)} rows of features, {len(bank_labels)} labels")
    if bank_labels.min() < 0 or bank_labels.max() >= classes:
        raise ValueError(f"labels run from {bank_labels.min()} to {bank_labels.max()}, there are {classes} classes")
    if k < 1 or temperature <= 0:
        raise ValueError(f"k and temperature must be positive, they are {k} and {temperature}")
    if not (np.isfinite(bank).all() and np.isfinite(queries).all()):
        raise ValueError("some features are not finite")
    unit, k = unit_rows(bank), min(k, len(bank))
    scores = np.zeros((len(queries), classes))
    for start in range(0, len(queries), BLOCK):
        similarity = unit_rows(queries[start : start + BLOCK]) @ unit.T
        nearest = np.argpartition(similarity, -k, axis=1)[:, -k:]
        close = np.take_along_axis(similarity, nearest, axis=1)
        weights = np.exp((close - close.max(axis=1, keepdims=True)) / temperature)
        if bank_labels.ndim == 2:
            shares = weights / weights.sum(axis=1, keepdims=True)
            scores[start : start + BLOCK] = np.einsum("qk,qkc->qc", shares, bank_labels[nearest])
        else:
            np.add.at(scores, (start + np.arange(len(close))[:, None], bank_labels[nearest]), weights)
    return scores if bank_labels.ndim == 2 else scores / scores.sum(axis=1, keepdims=True)


def unit_rows(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows (n, D) scaled to length one; a zero stays zero."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
