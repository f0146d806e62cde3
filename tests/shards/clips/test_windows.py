"""Start times of windows: no overlap, nothing outside the clip, every arrangement equally likely."""

import numpy as np
import pytest
from modalgate.shards.clips.windows import frame_times, random_starts, shifted_starts, uniform_starts


def draws(duration: float, seconds: float, segments: int, count: int = 4000) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.stack([random_starts(duration, seconds, segments, generator) for _ in range(count)])


def test_random_windows_are_ordered_disjoint_and_inside() -> None:
    starts = draws(3.0, 0.75, 3)
    assert (np.diff(starts, axis=1) >= 0.75 - 1e-9).all()
    assert starts.min() >= 0
    assert starts.max() <= 3.0 - 0.75 + 1e-9


def test_gaps_are_uniform_on_the_simplex() -> None:
    starts = draws(3.0, 0.5, 3)
    gaps = np.diff(np.concatenate([np.zeros((len(starts), 1)), starts - np.arange(3) * 0.5], axis=1), axis=1)
    gaps = np.concatenate([gaps, 1.5 - gaps.sum(axis=1, keepdims=True)], axis=1) / 1.5
    # Dirichlet(1, 1, 1, 1): every gap has mean 1/4 and variance 3/80.
    error = np.sqrt(3 / 80 / len(starts))
    np.testing.assert_allclose(gaps.mean(axis=0), 0.25, atol=4 * error)
    np.testing.assert_allclose(gaps.var(axis=0), 3 / 80, rtol=0.12)


def test_a_short_clip_gets_overlapping_windows_inside_it() -> None:
    starts = draws(1.0, 0.75, 3, 200)
    assert (np.diff(starts, axis=1) >= 0).all()
    assert starts.max() <= 0.25
    assert (draws(0.5, 0.75, 2, 10) == 0).all()


@pytest.mark.parametrize(("segments", "expected"), [(1, [1.0]), (2, [0.0, 2.0]), (3, [0.0, 1.0, 2.0])])
def test_uniform_views_span_the_clip(segments: int, expected: list[float]) -> None:
    np.testing.assert_allclose(uniform_starts(3.0, 1.0, segments), expected)
    np.testing.assert_allclose(uniform_starts(0.5, 1.0, segments), 0.0)


def test_frames_lie_at_the_centres_of_equal_parts() -> None:
    times = frame_times(np.array([0.0, 2.0]), 1.0, 4)
    np.testing.assert_allclose(times, [[0.125, 0.375, 0.625, 0.875], [2.125, 2.375, 2.625, 2.875]])


def test_shifted_views_stay_inside_the_clip() -> None:
    for duration, margin in ((3.0, 1.0), (2.9, 0.5), (1.2, 0.1), (1.0, 0.0), (0.6, 0.0)):
        starts, room = shifted_starts(duration, 1.0, 3, (-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0))
        assert room == margin
        assert starts[0] == pytest.approx(margin)
        assert starts[0] - room >= 0
        if duration >= 1:
            assert starts[-1] + room + 1.0 <= duration + 1e-9
        middle = shifted_starts(duration, 1.0, 1, (1.0, 0.5, 0.1, 0.0))[0]
        assert middle == pytest.approx(uniform_starts(duration, 1.0, 1))
