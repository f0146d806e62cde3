"""Where a clip's segments start, in seconds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def random_starts(
    duration: float, seconds: float, segments: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Ordered starts (K,) of `segments` windows of `seconds`, with random gaps that never overlap.

    The clip's spare time is split over the K + 1 gaps uniformly on the simplex, so every arrangement that fits is
    equally likely and a gap's length says nothing of its place. A clip too short for K windows gets overlapping
    ones; a clip shorter than one window gets them all at 0.
    """
    spare = duration - segments * seconds
    if spare < 0:
        return np.sort(generator.uniform(0.0, max(duration - seconds, 0.0), segments))
    gaps = generator.dirichlet(np.ones(segments + 1)) * spare
    return np.cumsum(gaps[:-1]) + np.arange(segments) * seconds


def uniform_starts(duration: float, seconds: float, segments: int) -> NDArray[np.float64]:
    """Starts (K,) of evaluation views, evenly spread from the clip's beginning to its end; one view is central."""
    last = max(duration - seconds, 0.0)
    return np.array([last / 2]) if segments == 1 else np.linspace(0.0, last, segments)


def shifted_starts(
    duration: float, seconds: float, segments: int, shifts: Sequence[float]
) -> tuple[NDArray[np.float64], float]:
    """Starts (K,) of views that stay inside the clip when they are moved by a shift either way, and the largest such
    shift of `shifts` that the clip has room for: where it has little, the views lie in its middle."""
    room = (duration - seconds) / 2
    # A shift that fills the clip to its very end must not fail by a rounding error.
    margin = max((abs(shift) for shift in shifts if abs(shift) <= room + 1e-9), default=0.0)
    return margin + uniform_starts(duration - 2 * margin, seconds, segments), margin


def frame_times(starts: NDArray[np.float64], seconds: float, frames: int) -> NDArray[np.float64]:
    """Times (K, T) at which each window is sampled: the centres of `frames` equal parts."""
    return starts[:, None] + (np.arange(frames) + 0.5) * (seconds / frames)
