"""A class as an alarm: the threshold chosen on validation, false alarms per hour, and scores of single frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from .classification import average_precision

Array = NDArray[Any]


def best_f1_threshold(scores: Array, positive: Array) -> float:
    """The threshold on scores (n,) with the greatest F1 for a binary truth (n,), the highest of equals.

    Choose it on validation clips, never on those it is judged by. Raises `ValueError` where no clip is positive.
    """
    positive = np.asarray(positive, bool)
    if not positive.any():
        raise ValueError("no positive clip to choose a threshold by")
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = np.flatnonzero(f1[:-1] >= f1[:-1].max() - 1e-12)
    return float(thresholds[best[-1]])


def false_alarms_per_hour(scores: Array, positive: Array, seconds: Array, recall: float = 0.9) -> float:
    """Alarms an hour of calm video raises at the highest threshold that still finds `recall` of the positive clips.

    Scores, binary truth and durations in seconds (n,), a clip being one decision. Raises `ValueError` where one of
    the sides does not occur, or the recall is outside (0, 1].
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise ValueError("false alarms need clips of both kinds")
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}: give a share above 0 and at most 1")
    violent = np.sort(scores[positive])[::-1]
    threshold = violent[int(np.ceil(recall * len(violent) - 1e-9)) - 1]
    hours = float(np.sum(np.asarray(seconds)[~positive])) / 3600
    return float((scores[~positive] >= threshold).sum()) / hours


def frame_scores(starts: Array, ends: Array, scores: Array, times: Array) -> NDArray[np.float64]:
    """The mean score (t,) of the windows that cover each of `times`; windows (w,) from start up to end, in seconds.

    A time no window covers takes the score of the nearest. Raises `ValueError` for no windows.
    """
    if not len(scores):
        raise ValueError("no windows to score frames by")
    inside = (times[:, None] >= starts) & (times[:, None] < ends)
    covered = inside.sum(axis=1)
    mean = (inside * scores).sum(axis=1) / np.maximum(covered, 1)
    gap = np.maximum(np.maximum(starts - times[:, None], times[:, None] - ends), 0)
    return np.where(covered > 0, mean, scores[gap.argmin(axis=1)])


def frames_of(
    windows: tuple[Array, Array, Array], spans: Sequence[tuple[float, float]], fps: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores and truth (t,) of every frame of one video: windows (starts, ends, scores) and its violent spans, all in
    seconds."""
    starts, ends, values = windows
    times = np.arange(0.0, float(np.max(ends)), 1 / fps)
    inside = np.any([(times >= begin) & (times < end) for begin, end in spans] or [times < 0], axis=0)
    return frame_scores(starts, ends, values, times), inside.astype(np.int64)


def frame_average_precision(
    windows: Sequence[tuple[Array, Array, Array]], violent: Sequence[Sequence[tuple[float, float]]], fps: float
) -> float:
    """Average precision over every frame of untrimmed videos, pooled (XD-Violence's measure; Wu et al. 2020).

    `windows`: per video (starts, ends, scores); `violent`: per video its violent spans in seconds. Frame scores are
    another quantity than clip scores: never put both in one column.
    """
    frames = [frames_of(video, spans, fps) for video, spans in zip(windows, violent, strict=True)]
    scores, truth = (np.concatenate(parts) for parts in zip(*frames, strict=True))
    return average_precision(scores, truth)
