"""Decision thresholds, false alarms per hour, and scores of single frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

Array = NDArray[Any]


def best_f1_threshold(scores: Array, positive: Array) -> float:
    """Returns the threshold on scores (n,) with the best F1 for a binary truth (n,). The highest one wins a tie.

    Choose it on validation clips, not on test clips. Raises `ValueError` if no clip is positive.

    >>> best_f1_threshold(np.array([0.9, 0.6, 0.2]), np.array([1, 1, 0]))
    0.6
    """
    positive = np.asarray(positive, bool)
    if not positive.any():
        raise ValueError("no clip is positive: a threshold needs at least one positive clip")
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = np.flatnonzero(f1[:-1] >= f1[:-1].max() - 1e-12)
    return float(thresholds[best[-1]])


def false_alarms_per_hour(scores: Array, positive: Array, seconds: Array, recall: float = 0.9) -> float:
    """Returns the false alarms per hour at the highest threshold that finds `recall` of the positive clips.

    Each clip is one decision. Only the duration of negative clips counts.

    - `scores` (n,)
    - `positive` (n,): binary truth.
    - `seconds` (n,): durations.

    Raises `ValueError` if all clips have the same class, or if `recall` is outside (0, 1].
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise ValueError("false alarms need both positive and negative clips")
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}: it must be above 0 and at most 1")
    violent = np.sort(scores[positive])[::-1]
    threshold = violent[int(np.ceil(recall * len(violent) - 1e-9)) - 1]
    hours = float(np.sum(np.asarray(seconds)[~positive])) / 3600
    return float((scores[~positive] >= threshold).sum()) / hours


def frame_scores(starts: Array, ends: Array, scores: Array, times: Array) -> NDArray[np.float64]:
    """Returns for each of `times` (t,) the mean score of the windows that cover it.

    A window covers `start <= time < end`, in seconds. A time that no window covers takes the score of the nearest
    window.

    - `starts`, `ends`, `scores` (w,)

    Raises `ValueError` without windows.
    """
    if not len(scores):
        raise ValueError("no windows: frame scores need at least one")
    inside = (times[:, None] >= starts) & (times[:, None] < ends)
    covered = inside.sum(axis=1)
    mean = (inside * scores).sum(axis=1) / np.maximum(covered, 1)
    gap = np.maximum(np.maximum(starts - times[:, None], times[:, None] - ends), 0)
    return np.where(covered > 0, mean, scores[gap.argmin(axis=1)])


def frames_of(
    windows: tuple[Array, Array, Array], spans: Sequence[tuple[float, float]], fps: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns scores and truth (t,) of every frame of one video.

    - `windows`: (starts, ends, scores), each (w,), in seconds.
    - `spans`: (begin, end) of the positive spans, in seconds.
    """
    starts, ends, values = windows
    times = np.arange(0.0, float(np.max(ends)), 1 / fps)
    inside = np.any([(times >= begin) & (times < end) for begin, end in spans] or [times < 0], axis=0)
    return frame_scores(starts, ends, values, times), inside.astype(np.int64)
