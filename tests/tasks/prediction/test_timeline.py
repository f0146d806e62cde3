"""Bins of a timeline against means of all windows."""

import numpy as np
import pytest
from modalgate.tasks.prediction.timeline import TimelineBins


def test_a_fixed_number_of_bins_holds_means_of_neighbours() -> None:
    for count in (1, 7, 8, 9, 100, 1001):
        scores = np.random.default_rng(0).random((count, 2))
        bins = TimelineBins(["calm", "fight"], ["rgb"], most=8)
        for time, row in enumerate(scores.tolist()):
            bins.add(time, row, [1.0])
        per_bin = bins.per_bin
        assert len(bins) <= 8
        assert per_bin == 2 ** max(int(np.ceil(np.log2(count / 8))), 0)
        groups = [slice(first, first + per_bin) for first in range(0, count, per_bin)]
        found = bins.timeline("hall")
        assert found.times == pytest.approx([np.arange(count)[group].mean() for group in groups])
        assert found.scores["fight"] == pytest.approx([scores[group, 1].mean() for group in groups])
        assert found.gates == {"rgb": [1.0] * len(groups)}
        highest = [scores[group, 0].max() for group in groups]
        assert bins.peaks() == ({} if per_bin == 1 else {"calm": highest, "fight": bins.peaks()["fight"]})
