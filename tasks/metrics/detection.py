"""Detection of events in untrimmed recordings: metrics of single frames, and of alarms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Cell, Table
from .chance import Figure, chance_warning
from .classification import average_precision, bootstrap_interval, roc_auc
from .significance import few_groups_note
from .thresholds import frames_of

Array = NDArray[Any]
RECALL = 0.9


@dataclass(frozen=True)
class ScoredVideo:
    """Window scores of one recording, and its true events. All times are in seconds."""

    name: str
    starts: Array
    """Start of each window (w,), in ascending order."""
    ends: Array
    """End of each window (w,)."""
    scores: Array
    """Score of each window (w,)."""
    spans: tuple[tuple[float, float], ...]
    """(begin, end) of each true event."""

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return float(np.max(self.ends))

    @property
    def calm_seconds(self) -> float:
        """Seconds outside all spans. Overlapping spans count once."""
        inside, reached = 0.0, 0.0
        for begin, end in sorted(self.spans):
            begin, end = max(begin, reached), min(end, self.seconds)
            inside += max(end - begin, 0.0)
            reached = max(reached, end)
        return self.seconds - inside

    def overlapping(self, span: tuple[float, float]) -> NDArray[np.bool_]:
        """Returns which windows (w,) overlap `span`."""
        return (self.starts < span[1]) & (self.ends > span[0])

    def frames(self, fps: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns score and truth of every frame at `fps`."""
        return frames_of((self.starts, self.ends, self.scores), self.spans, fps)


@dataclass(frozen=True)
class Alarms:
    """Alarms at one threshold, over several recordings."""

    threshold: float
    spans: int
    """Number of true events."""
    found: int
    """Number of true events that an alarm overlaps."""
    delay: float
    """Median delay in seconds from the start of an event to its detection. NaN if none is found."""
    alarms: int
    """Number of alarms."""
    false: int
    """Number of alarms that overlap no event."""
    per_hour: float
    """False alarms per hour of calm video. NaN without calm video."""


def alarm_events(video: ScoredVideo, threshold: float) -> list[tuple[float, float]]:
    """Returns (begin, end) of every alarm: a run of successive windows with scores at or above the threshold."""
    events: list[tuple[float, float]] = []
    sounding = False
    for start, end, score in zip(video.starts, video.ends, video.scores, strict=True):
        if score >= threshold:
            begin = events.pop()[0] if sounding else float(start)
            events.append((begin, float(end)))
        sounding = bool(score >= threshold)
    return events


def judge_alarms(videos: Sequence[ScoredVideo], threshold: float) -> Alarms:
    """Counts the alarms at `threshold`.

    An alarm is one event, however many windows it lasts. An alarm is false if it overlaps no span. A span is found if
    a window at or above the threshold overlaps it. Its delay ends when the first such window ends, because the score
    is not known before.
    """
    spans, delays, alarms, false = 0, [], 0, 0
    for video in videos:
        events = alarm_events(video, threshold)
        alarms += len(events)
        false += sum(not any(begin < b and end > a for a, b in video.spans) for begin, end in events)
        for span in video.spans:
            spans += 1
            told = video.ends[video.overlapping(span) & (video.scores >= threshold)]
            if len(told):
                delays.append(float(told.min()) - span[0])
    hours = sum(video.calm_seconds for video in videos) / 3600
    per_hour = false / hours if hours > 0 else float("nan")
    delay = float(np.median(delays)) if delays else float("nan")
    return Alarms(threshold, spans, len(delays), delay, alarms, false, per_hour)


def recall_threshold(videos: Sequence[ScoredVideo], recall: float = RECALL) -> float:
    """Returns the highest threshold that finds the share `recall` of all spans.

    Raises `ValueError` if there is no span, or if `recall` is outside (0, 1].
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}: it must be above 0 and at most 1")
    best = sorted((float(v.scores[v.overlapping(s)].max()) for v in videos for s in v.spans), reverse=True)
    if not best:
        raise ValueError("no span to find")
    return best[int(np.ceil(recall * len(best) - 1e-9)) - 1]


def detection_tables(videos: Sequence[ScoredVideo], fps: float, threshold: float) -> list[Table]:
    """Returns a table of frame metrics and a table of alarms.

    Frame metrics are given by video and over all frames. Alarms are counted at `threshold`, and at the threshold that
    finds 90 % of the spans. Frame metrics are not comparable with clip metrics, so they have separate columns.
    """
    held = [video.frames(fps) for video in videos]
    rows: list[list[Cell]] = [
        [
            *(video.name, video.seconds, len(video.spans)),
            *(_finite(average_precision(*frames)), float(frames[1].mean()), _finite(roc_auc(*frames)), 0.5),
        ]
        for video, frames in zip(videos, held, strict=True)
    ]
    scores, truth = (np.concatenate(parts) for parts in zip(*held, strict=True))
    pooled = [average_precision(scores, truth), float(truth.mean()), roc_auc(scores, truth), 0.5]
    total, spans = sum(video.seconds for video in videos), sum(len(video.spans) for video in videos)
    rows.append(["all, pooled", total, spans, *map(_finite, pooled)])
    units = np.repeat(np.arange(len(videos)).astype(str), [len(part) for part, _ in held])
    low, high = bootstrap_interval(lambda rows: average_precision(scores[rows], truth[rows]), units, draws=500)
    note = (
        f"Frames at {fps:g} per second. A frame's score is the mean score of the windows that cover it. "
        "Chance AP: share of frames inside spans. "
        f"All, pooled: one ranking of the frames of all videos, which the same model scores. "
        f"Pooled AP: 95 % interval {low:.3g} to {high:.3g}, bootstrap over videos."
        f"{few_groups_note(units, tested=False)}"
    )
    columns = ["video", "seconds", "spans", "frame AP", "chance AP", "frame AUC", "chance AUC"]
    frames = Table("Frames", columns, rows, note)
    chosen = [("given threshold", threshold), (f"finds {RECALL:.0%} of the spans", recall_threshold(videos))]
    alarms: list[list[Cell]] = []
    for name, value in chosen:
        judged = judge_alarms(videos, value)
        found, per_hour, delay = judged.found / judged.spans, judged.per_hour, judged.delay
        alarms.append([name, value, found, judged.alarms, judged.false, _finite(per_hour), _finite(delay)])
    calm = sum(video.calm_seconds for video in videos) / 3600
    note = (
        "Alarm: successive windows at or above the threshold. False: overlaps no span. "
        f"{calm:.3g} h of calm video. "
        "Delay: median seconds from the start of a span to the end of the first window that detects it."
    )
    columns = ["threshold", "value", "spans found", "alarms", "false", "false per hour", "delay"]
    return [frames, Table("Alarms", columns, alarms, note)]


def detection_warning(videos: Sequence[ScoredVideo], fps: float) -> list[str]:
    """Returns a warning if the interval of the pooled frame AP contains chance, or nothing.

    The interval comes from a bootstrap over videos.
    """
    held = [video.frames(fps) for video in videos]
    scores, truth = (np.concatenate(parts) for parts in zip(*held, strict=True))
    units = np.repeat(np.arange(len(videos)).astype(str), [len(part) for part, _ in held])
    value = average_precision(scores, truth)
    low, high = bootstrap_interval(lambda rows: average_precision(scores[rows], truth[rows]), units, draws=500)
    figure = Figure("frame AP", value, low, high, float(truth.mean()))
    return chance_warning([figure], "do not rely on the alarms of this model; fine-tune it longer (train.steps)")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
