"""Retrieval by cosine similarity: a clip of the same class, or the same clip in another modality."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .knn import unit_rows

Array = NDArray[Any]
RANKS = (1, 5, 10, 20)


@dataclass(frozen=True)
class Retrieved:
    """`recall`: share of queries with a hit among the first k, by k; `median_rank` of the first hit, counted from 1
    (NaN where a query has none); `gallery`: how many clips were searched: recall means nothing without it."""

    recall: dict[int, float]
    median_rank: float
    gallery: int


def class_retrieval(
    gallery: Array, gallery_labels: Array, queries: Array, labels: Array, ranks: Sequence[int] = RANKS
) -> Retrieved:
    """Queries (m, D) among gallery (n, D): a hit shares the query's label (Xu et al., "VCOP", 2019).

    Query test clips in the train clips. Raises `ValueError` for empty input or rows and labels that differ in number.
    """
    if len(gallery) != len(gallery_labels) or len(queries) != len(labels):
        raise ValueError("features and labels differ in number")
    return _retrieve(gallery, queries, lambda rows: gallery_labels[None, :] == labels[rows, None], ranks)


def cross_modal_retrieval(queries: Array, gallery: Array, ranks: Sequence[int] = RANKS) -> Retrieved:
    """Row i of queries (n, D) seeks row i of gallery (n, D): the same clip in another modality.

    Both must lie in one space, as projections of a cross-modal task do. Raises `ValueError` for other sizes or none.
    """
    if len(queries) != len(gallery):
        raise ValueError(f"{len(queries)} queries and {len(gallery)} gallery rows: give the same clips in both")
    return _retrieve(gallery, queries, lambda rows: np.arange(len(gallery))[None, :] == rows[:, None], ranks)


def _retrieve(gallery: Array, queries: Array, hits: Any, ranks: Sequence[int]) -> Retrieved:
    if not len(gallery) or not len(queries):
        raise ValueError("nothing to search, or nothing to search for")
    unit = unit_rows(gallery)
    first = np.empty(len(queries))
    for start in range(0, len(queries), 512):
        rows = np.arange(start, min(start + 512, len(queries)))
        similarity = unit_rows(queries[rows]) @ unit.T
        hit = hits(rows)
        best = np.where(hit, similarity, -np.inf).max(axis=1, keepdims=True)
        # A tie with a clip that is no hit counts against: a collapsed encoder must not retrieve everything.
        ahead = (~hit & (similarity >= best)).sum(axis=1)
        first[rows] = np.where(hit.any(axis=1), ahead + 1.0, np.inf)
    median = float(np.median(first))
    return Retrieved(
        {k: float((first <= k).mean()) for k in ranks},
        median if np.isfinite(median) else float("nan"),
        len(gallery),
    )
