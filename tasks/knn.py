"""Weighted nearest neighbours on frozen features."""

import numpy as np
from numpy.typing import NDArray


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
    at most the bank's size. (lightly's `knn_predict` returns ranked classes only, and raises for a larger k.)
    """
    if not len(bank):
        raise ValueError("no samples to compare with")
    similarity = _unit(queries) @ _unit(bank).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, len(bank))]
    close = np.take_along_axis(similarity, nearest, axis=1)
    weights = np.exp((close - close.max(axis=1, keepdims=True)) / temperature)
    scores = np.zeros((len(queries), classes))
    np.add.at(scores, (np.arange(len(queries))[:, None], bank_labels[nearest]), weights)
    return scores / scores.sum(axis=1, keepdims=True)


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
