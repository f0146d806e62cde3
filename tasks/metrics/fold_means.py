"""Metrics of rankings, such as AUC and average precision, averaged over the folds of a cross-validation.

Every fold has its own model, and scores of two models are not comparable. Ranking the pooled clips of all folds mixes
them, which makes an AUC too low.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Folds:
    """The fold of each of n clips."""

    numbers: NDArray[np.int64]
    """Fold number of each clip (n,)."""
    sizes: NDArray[np.int64]
    """Number of clips of each fold (F,)."""

    @staticmethod
    def of(names: Sequence[str] | Array, clips: int) -> "Folds":
        """Returns the folds of `clips` clips from the name of each clip's fold. Without names there is one fold."""
        if not len(names):
            return Folds(np.zeros(clips, np.int64), np.array([clips]))
        _, numbers, sizes = np.unique(np.asarray(names), return_inverse=True, return_counts=True)
        return Folds(numbers.astype(np.int64), sizes)

    def mean(
        self, statistic: Callable[[NDArray[np.int64]], Any], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Returns the mean over folds of `statistic(row numbers of one fold)`, a number or an array.

        Folds count equally. If `rows` is a bootstrap draw, a fold counts as often as its clips were drawn. Values
        that are not finite are skipped, entry by entry. The mean is NaN where no fold has a finite value.

        - `rows` (m,): clips that count, which may repeat. Default: all.
        """
        rows = np.arange(len(self.numbers)) if rows is None else rows
        if len(self.sizes) == 1:
            return np.asarray(statistic(rows), float)
        order = np.argsort(self.numbers[rows], kind="stable")
        folds, starts = np.unique(self.numbers[rows][order], return_index=True)
        parts = np.split(rows[order], starts[1:])
        values = np.array([statistic(part) for part in parts], float)
        weights = np.array([len(part) for part in parts]) / self.sizes[folds]
        weights = np.where(np.isfinite(values), weights.reshape(-1, *[1] * (values.ndim - 1)), 0.0)
        total = weights.sum(axis=0)
        summed = (weights * np.where(np.isfinite(values), values, 0.0)).sum(axis=0)
        return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)

    @property
    def note(self) -> str:
        """A part of a table note. Empty with one fold."""
        return f"; AUC and average precision: mean over {len(self.sizes)} folds" if len(self.sizes) > 1 else ""
