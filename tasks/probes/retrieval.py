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
    """Result of a retrieval."""

    recall: dict[int, float]
    """Share of queries with a hit among the first k, by k."""
    median_rank: float
    """Median rank of the first hit, from 1. NaN if at least half of the queries have no hit."""
    gallery: int
    """Number of clips searched. Recalls are comparable only for equal galleries."""


def class_retrieval(
    gallery: Array, gallery_labels: Array, queries: Array, labels: Array, ranks: Sequence[int] = RANKS
) -> Retrieved:
    """Searches clips with the query's label (Xu et al., "VCOP", 2019).

    Use test clips as queries and training clips as gallery.

    - `gallery` (n, D), `gallery_labels` (n,).
    - `queries` (m, D), `labels` (m,).

    Raises `ValueError` for empty input, and for unequal numbers of rows and labels.
    """
    if len(gallery) != len(gallery_labels) or len(queries) != len(labels):
        raise ValueError("features and labels differ in number: give one label per row")
    return _retrieve(gallery, queries, lambda rows: gallery_labels[None, :] == labels[rows, None], ranks)


def cross_modal_retrieval(queries: Array, gallery: Array, ranks: Sequence[int] = RANKS) -> Retrieved:
    """Searches row i of `gallery` (n, D) with row i of `queries` (n, D): the same clip in another modality.

    Both must be in one space, such as the projections of a cross-modal task. Raises `ValueError` for unequal numbers
    of rows, and for empty input.
    """
    if len(queries) != len(gallery):
        raise ValueError(f"{len(queries)} queries, but {len(gallery)} gallery rows: give the same clips in both")
    return _retrieve(gallery, queries, lambda rows: np.arange(len(gallery))[None, :] == rows[:, None], ranks)


def _retrieve(gallery: Array, queries: Array, hits: Any, ranks: Sequence[int]) -> Retrieved:
    if not len(gallery) or not len(queries):
        raise ValueError("the gallery or the queries are empty: give at least one row of each")
    unit = unit_rows(gallery)
    first = np.empty(len(queries))
    for start in range(0, len(queries), 512):
        rows = np.arange(start, min(start + 512, len(queries)))
        similarity = unit_rows(queries[rows]) @ unit.T
        hit = hits(rows)
        best = np.where(hit, similarity, -np.inf).max(axis=1, keepdims=True)
        # Ties count as misses: otherwise a collapsed encoder would retrieve everything.
        ahead = (~hit & (similarity >= best)).sum(axis=1)
        first[rows] = np.where(hit.any(axis=1), ahead + 1.0, np.inf)
    median = float(np.median(first))
    return Retrieved(
        {k: float((first <= k).mean()) for k in ranks},
        median if np.isfinite(median) else float("nan"),
        len(gallery),
    )


# The short public name.
retrieval = class_retrieval
