"""Retrieval with a probe's features over its splits: the same class within a feature, the same clip across two."""

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
    """Recall at `RANKS` of test clips, averaged over splits by their queries, as `median_rank` and `gallery` are.

    `chance`: the recall at rank 1 of a random order; `queries`: how many clips searched, over all splits.
    """

    query: str
    gallery_feature: str
    recall: dict[int, float]
    median_rank: float
    gallery: float
    chance: float
    queries: int


def class_rows(features: Features, labels: NDArray[np.int64], splits: Sequence[Split]) -> list[RetrievalRow]:
    """`fused`, every modality and `concat`: a test clip seeks clips of its class among the train clips."""
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
    """Every ordered pair of modalities: a test clip's one modality seeks the same clip's other among the test clips.

    Encoders of two modalities share no space. The query's features go through a ridge regression onto the
    gallery's, fitted without labels on the train clips that have both (strength by leave-one-out error); both sides
    are centred by their train means. A split without clips of both kinds is passed over.
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
    """Queries (m, D) as the ridge regression from source (n, D) onto centred target (n, E) sees them: (m, E)."""
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
