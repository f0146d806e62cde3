"""Events in untrimmed recordings: how well window scores find them, by frame and as alarms that a person hears."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Cell, Table
from .chance import Figure, chance_warning
from .classification import average_precision, bootstrap_interval, roc_auc
from .thresholds import frames_of

Array = NDArray[Any]
RECALL = 0.9


@dataclass(frozen=True)
class ScoredVideo:
    """A recording's windows, `starts`, `ends` and `scores` (w,) in the order of time, and the true `spans`, all in
    seconds."""

    name: str
    starts: Array
    ends: Array
    scores: Array
    spans: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(np.max(self.ends))

    @property
    def calm_seconds(self) -> float:
        """How long none of its spans lasts; where spans overlap they count once."""
        inside, reached = 0.0, 0.0
        for begin, end in sorted(self.spans):
            begin, end = max(begin, reached), min(end, self.seconds)
            inside += max(end - begin, 0.0)
            reached = max(reached, end)
        return self.seconds - inside

    def overlapping(self, span: tuple[float, float]) -> NDArray[np.bool_]:
        """Which windows (w,) share time with `span`."""
        return (self.starts < span[1]) & (self.ends > span[0])

    def frames(self, fps: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scores and truth of its frames."""
        return frames_of((self.starts, self.ends, self.scores), self.spans, fps)


@dataclass(frozen=True)
class Alarms:
    """What one `threshold` does: of `spans` so many are `found`, `delay` seconds after they begin (median; NaN where
    none is found); `alarms` are raised, of which `false` in calm time, `per_hour` of it."""

    threshold: float
    spans: int
    found: int
    delay: float
    alarms: int
    false: int
    per_hour: float


def alarm_events(video: ScoredVideo, threshold: float) -> list[tuple[float, float]]:
    """(begin, end) of every alarm: a run of successive windows whose score reaches the threshold is one."""
    events: list[tuple[float, float]] = []
    sounding = False
    for start, end, score in zip(video.starts, video.ends, video.scores, strict=True):
        if score >= threshold:
            begin = events.pop()[0] if sounding else float(start)
            events.append((begin, float(end)))
        sounding = bool(score >= threshold)
    return events


def judge_alarms(videos: Sequence[ScoredVideo], threshold: float) -> Alarms:
    """Alarms are events, not clips: however many windows one lasts, a person hears it once.

    A span is found where a window that reaches the threshold shares time with it, and told when the first such window
    ends, before which nobody can know. An alarm that shares time with no span is false.
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
    """The highest threshold at which that share of all spans is found.

    Raises `ValueError` where there is no span, or the recall is outside (0, 1].
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}: give a share above 0 and at most 1")
    best = sorted((float(v.scores[v.overlapping(s)].max()) for v in videos for s in v.spans), reverse=True)
    if not best:
        raise ValueError("no span to find")
    return best[int(np.ceil(recall * len(best) - 1e-9)) - 1]


def detection_tables(videos: Sequence[ScoredVideo], fps: float, threshold: float) -> list[Table]:
    """Frames, by video and pooled, and alarms at `threshold` and at the one that finds nine tenths of the spans.

    Frame figures are another quantity than clip figures: they stand in columns of their own.
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
        f"frame AP and AUC at {fps:g} frames per second, a frame's score the mean of the windows over it; beside "
        "each its chance, of AP the share of frames inside spans; "
        f"pooled AP 95 % {low:.3g} to {high:.3g}, by bootstrap over videos"
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
        f"alarms are runs of windows at or above the threshold; false ones share no time with a span; {calm:.3g} h "
        "of calm video; delay: median seconds from a span's begin to the end of the first window that tells of it"
    )
    columns = ["threshold", "value", "spans found", "alarms", "false", "false per hour", "delay"]
    return [frames, Table("Alarms", columns, alarms, note)]


def detection_warning(videos: Sequence[ScoredVideo], fps: float) -> list[str]:
    """A line where the pooled frame AP's interval, by bootstrap over videos, holds chance."""
    held = [video.frames(fps) for video in videos]
    scores, truth = (np.concatenate(parts) for parts in zip(*held, strict=True))
    units = np.repeat(np.arange(len(videos)).astype(str), [len(part) for part, _ in held])
    value = average_precision(scores, truth)
    low, high = bootstrap_interval(lambda rows: average_precision(scores[rows], truth[rows]), units, draws=500)
    figure = Figure("frame AP", value, low, high, float(truth.mean()))
    return chance_warning([figure], "alarms of this model say little; fine-tune it longer (train.steps)")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
