"""Highlights are ranked, do not overlap, and follow the requested class."""

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.tasks.prediction.highlights import Highlight, highlights
from modalgate.tasks.prediction.window_scores import Prediction


def window(start: float, calm: float, length: float = 1.0) -> Prediction:
    return Prediction(start, start + length, {"calm": calm, "fight": 1 - calm}, {"rgb": 1.0}, ["rgb"])


def test_windows_that_overlap_a_higher_one_are_dropped() -> None:
    windows = [window(0.0, 0.3), window(0.5, 0.1), window(1.0, 0.2), window(1.5, 0.25), window(2.0, 0.9)]
    assert highlights(windows, 5, "fight") == [
        Highlight(0.5, 1.5, 1.0, "fight", 0.9),
        Highlight(1.5, 2.5, 2.0, "fight", 0.75),
    ]


def test_without_a_class_windows_rank_by_their_best_class() -> None:
    found = highlights([window(0.0, 0.8), window(1.0, 0.1), window(2.0, 0.6)], 2)
    assert [(one.class_name, one.score, one.start) for one in found] == [("fight", 0.9, 1.0), ("calm", 0.8, 0.0)]


def test_the_earliest_wins_a_tie() -> None:
    assert [one.start for one in highlights([window(float(n), 0.5) for n in range(5)], 2, "calm")] == [0.0, 1.0]


def test_highlights_equal_a_naive_search() -> None:
    generator = np.random.default_rng(0)
    windows = [window(0.25 * n, float(generator.random())) for n in range(60)]
    left, expected = list(windows), []
    while left and len(expected) < 6:
        best = max(left, key=lambda one: one.probabilities["calm"])
        expected.append(best.start)
        left = [one for one in left if abs(one.start - best.start) >= 1]
    assert [one.start for one in highlights(windows, 6, "calm")] == expected


def test_no_windows_give_nothing_and_an_unknown_class_raises() -> None:
    assert highlights([], 3, "fight") == []
    with pytest.raises(RequestError, match="did you mean 'fight'"):
        highlights([window(0.0, 0.5)], 3, "figth")
