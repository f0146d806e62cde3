"""Start times of a clip's windows, in seconds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def random_starts(
    duration: float, seconds: float, segments: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Returns ordered start times (K,) of `segments` windows of `seconds` that do not overlap, with random gaps.

    The spare time is split over the K + 1 gaps uniformly on the simplex: every arrangement that fits is equally
    likely, and the length of a gap does not reveal its position. In a clip too short for K windows, they overlap. In
    a clip shorter than one window, all start at 0.
    """
    spare = duration - segments * seconds
    if spare < 0:
        return np.sort(generator.uniform(0.0, max(duration - seconds, 0.0), segments))
    gaps = generator.dirichlet(np.ones(segments + 1)) * spare
    return np.cumsum(gaps[:-1]) + np.arange(segments) * seconds


def uniform_starts(duration: float, seconds: float, segments: int) -> NDArray[np.float64]:
    """Returns start times (K,) of evaluation views, spread evenly from beginning to end. A single view is central.

    >>> uniform_starts(duration=10.0, seconds=2.0, segments=3).tolist()
    [0.0, 4.0, 8.0]
    """
    last = max(duration - seconds, 0.0)
    return np.array([last / 2]) if segments == 1 else np.linspace(0.0, last, segments)


def shifted_starts(
    duration: float, seconds: float, segments: int, shifts: Sequence[float]
) -> tuple[NDArray[np.float64], float]:
    """Returns start times (K,) of views that stay inside the clip when shifted, and the largest shift that fits.

    `shifts`: shifts in seconds, in either direction. Views of a clip with little room lie in its middle.
    """
    room = (duration - seconds) / 2
    # A shift that exactly fills the clip must not fail by a rounding error.
    margin = max((abs(shift) for shift in shifts if abs(shift) <= room + 1e-9), default=0.0)
    return margin + uniform_starts(duration - 2 * margin, seconds, segments), margin


def frame_times(starts: NDArray[np.float64], seconds: float, frames: int) -> NDArray[np.float64]:
    """Returns the sample times (K, T) of each window: the centres of `frames` equal parts.

    >>> frame_times(np.array([0.0, 4.0]), seconds=2.0, frames=2).tolist()
    [[0.5, 1.5], [4.5, 5.5]]
    """
    return starts[:, None] + (np.arange(frames) + 0.5) * (seconds / frames)
