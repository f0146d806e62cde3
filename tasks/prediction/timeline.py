"""Scores and gate weights over any length of time, in a fixed number of bins."""

from collections.abc import Sequence

import numpy as np

from ..records import Timeline

MOST_BINS = 2000


class TimelineBins:
    """Means and maxima of neighbouring windows. When all `most` bins are full, neighbouring bins are merged."""

    def __init__(self, classes: Sequence[str], modalities: Sequence[str], most: int = MOST_BINS) -> None:
        self.classes, self.modalities = tuple(classes), tuple(modalities)
        # Columns: number of windows, then sums of times, scores and weights.
        self.sums = np.zeros((most, 2 + len(self.classes) + len(self.modalities)))
        self.highest = np.zeros((most, len(self.classes)))
        self.per_bin, self.filled = 1, 0

    def __len__(self) -> int:
        return self.filled

    def add(self, time: float, scores: Sequence[float], weights: Sequence[float]) -> None:
        """Adds one window: its centre in seconds, its scores by class and its weights by modality, in order."""
        if not self.filled or self.sums[self.filled - 1, 0] >= self.per_bin:
            if self.filled == len(self.sums):
                self._halve()
            self.filled += 1
        row = self.filled - 1
        self.sums[row] += (1, time, *scores, *weights)
        self.highest[row] = np.maximum(self.highest[row], scores)

    def _halve(self) -> None:
        half = len(self.sums) // 2
        pairs = self.sums[: 2 * half].reshape(half, 2, -1).sum(axis=1)
        highest = self.highest[: 2 * half].reshape(half, 2, -1).max(axis=1)
        rest = len(self.sums) % 2
        kept = half + rest
        self.sums[half:kept] = self.sums[2 * half :]
        self.highest[half:kept] = self.highest[2 * half :]
        self.sums[:half], self.highest[:half] = pairs, highest
        self.sums[kept:], self.highest[kept:] = 0, 0
        self.per_bin, self.filled = self.per_bin * 2, kept

    def timeline(self, title: str) -> Timeline:
        """Returns the means as a figure."""
        counts = np.maximum(self.sums[: self.filled, :1], 1)
        times, values = np.split(self.sums[: self.filled, 1:] / counts, [1], axis=1)
        names = self.classes + self.modalities
        columns = dict(zip(range(len(names)), values.T.tolist(), strict=True))
        scores = {name: columns[number] for number, name in enumerate(self.classes)}
        weights = {name: columns[len(self.classes) + number] for number, name in enumerate(self.modalities)}
        return Timeline(title, times[:, 0].tolist(), scores, weights)

    def peaks(self) -> dict[str, list[float]]:
        """Returns the highest score of each bin by class. Empty while each bin has one window."""
        if self.per_bin == 1:
            return {}
        return dict(zip(self.classes, self.highest[: self.filled].T.tolist(), strict=True))
