"""Weighted nearest neighbours on frozen features."""

import numpy as np
from numpy.typing import NDArray

# Number of queries per block. All similarities of a large test set at once would take gigabytes.
BLOCK = 512


def knn_scores(
    bank: NDArray[np.floating],
    bank_labels: NDArray[np.int64],
    queries: NDArray[np.floating],
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float64]:
    """Returns class scores (m, C) from the `k` most similar rows of `bank`. The scores of a query sum to one.

    Similarity is the cosine. Each neighbour is weighted by `exp(similarity / temperature)`. This is the protocol of
    DINO (Caron et al. 2021).

    - `bank` (n, D): features of the labelled clips.
    - `bank_labels` (n,): class numbers. With several classes per clip (n, C) of 0 and 1, each class is scored
      separately: the weighted share of the neighbours that have it. These scores do not sum to one.
    - `queries` (m, D): features of the clips to classify.
    - `classes`: number of classes C.
    - `k`: at most n neighbours are used.

    Unlike lightly's `knn_predict` it returns scores, not only ranked classes, and accepts `k` above n.

    Raises `ValueError` for an empty bank, unequal lengths, `k` or `temperature` not above zero, features that are not
    finite, and labels outside 0..C-1.

    >>> knn_scores(np.eye(2), np.array([0, 1]), np.array([[1.0, 0.0]]), classes=2, k=1).tolist()
    [[1.0, 0.0]]
    """
    if not len(bank):
        raise ValueError("no samples to compare with")
    if len(bank) != len(bank_labels):
        raise ValueError(f"{len(bank)} rows of features, but {len(bank_labels)} labels")
    if bank_labels.min() < 0 or bank_labels.max() >= classes:
        raise ValueError(f"labels range from {bank_labels.min()} to {bank_labels.max()}: there are {classes} classes")
    if k < 1 or temperature <= 0:
        raise ValueError(f"k is {k} and temperature {temperature}: both must be positive")
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
    """Returns rows (n, D) scaled to length one. Zero rows stay zero."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


# The short public name.
knn = knn_scores
