"""Retrieval with the features of a probe over its splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from ..features.extract import Features
from ..splits.splits import Split
from .retrieval import RANKS, Retrieved, class_retrieval, cross_modal_retrieval

STRENGTHS = tuple(10.0**power for power in range(-2, 5))


@dataclass(frozen=True)
class RetrievalRow:
    """Retrieval results of test clips. Values are means over splits, weighted by their queries."""

    query: str
    """Feature of the queries."""
    gallery_feature: str
    """Feature of the gallery."""
    recall: dict[int, float]
    """Recall at each of `RANKS`."""
    median_rank: float
    """Median rank of the first hit."""
    gallery: float
    """Number of clips searched."""
    chance: float
    """Recall at rank 1 of a random order."""
    queries: int
    """Number of queries over all splits."""


def class_rows(features: Features, labels: NDArray[np.int64], splits: Sequence[Split]) -> list[RetrievalRow]:
    """Searches the class of each test clip among the training clips, for `fused`, every modality and `concat`."""
    rows = []
    for name in ("fused", *features.modalities, "concat"):
        values, present = features.values[name], features.present[name]
        found = []
        for split in splits:
            train, test = split.train[present[split.train]], split.test[present[split.test]]
            if len(train) and len(test):
                chance = float((labels[train][None, :] == labels[test][:, None]).mean())
                retrieved = class_retrieval(values[train], labels[train], values[test], labels[test])
                found.append((retrieved, chance, len(test)))
        rows.append(_row(name, name, found))
    return rows


def cross_modal_rows(features: Features, splits: Sequence[Split]) -> list[RetrievalRow]:
    """Searches each test clip by one modality among the test clips in another, for every ordered pair of modalities.

    Encoders of different modalities have different feature spaces. A ridge regression maps the query's features to
    the gallery's. It is fitted without labels on the training clips that have both. Leave-one-out error chooses its
    strength. Both sides are centred by their training means. Splits with fewer than two such training or test clips
    are skipped.
    """
    rows = []
    for query, gallery in permutations(features.modalities, 2):
        both = features.present[query] & features.present[gallery]
        found = []
        for split in splits:
            train, test = split.train[both[split.train]], split.test[both[split.test]]
            if len(train) > 1 and len(test) > 1:
                source, target = features.values[query], features.values[gallery]
                mapped = _map(source[train], target[train], source[test])
                centred = target[test] - target[train].mean(axis=0)
                found.append((cross_modal_retrieval(mapped, centred), 1 / len(test), len(test)))
        rows.append(_row(query, gallery, found))
    return rows


@threadpool_limits.wrap(limits=1, user_api="blas")
def _map(source: NDArray[np.float32], target: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray:
    """Returns queries (m, D) mapped by a ridge regression from source (n, D) to centred target (n, E): (m, E)."""
    mean, std = source.mean(axis=0, dtype=np.float64), source.std(axis=0, dtype=np.float64)
    std = np.where(std > 1e-8 + 1e-6 * np.abs(mean), std, 1.0)
    model = RidgeCV(alphas=STRENGTHS, fit_intercept=False)
    model.fit((source - mean) / std, target - target.mean(axis=0))
    return model.predict((queries - mean) / std).reshape(len(queries), target.shape[1])


def _row(query: str, gallery: str, found: Sequence[tuple[Retrieved, float, int]]) -> RetrievalRow:
    nothing = float("nan")
    if not found:
        return RetrievalRow(query, gallery, dict.fromkeys(RANKS, nothing), nothing, nothing, nothing, 0)
    weights = [queries for _, _, queries in found]

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=weights))

    return RetrievalRow(
        query,
        gallery,
        {k: mean([retrieved.recall[k] for retrieved, _, _ in found]) for k in RANKS},
        mean([retrieved.median_rank for retrieved, _, _ in found]),
        mean([retrieved.gallery for retrieved, _, _ in found]),
        mean([chance for _, chance, _ in found]),
        sum(weights),
    )
