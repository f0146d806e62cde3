"""Alarms from a score over time: smoothed, raised above one threshold, ended below a lower one."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from ...shards.errors import RequestError

Smoothing = Literal["mean", "exponential"]


@dataclass(frozen=True)
class AlarmRule:
    """When a score is an alarm.

    It is raised when the smoothed score has stayed at `on` or above for `min_on` seconds, and ends when it has
    stayed below `off` for `min_off` seconds. `smooth`: seconds of the moving mean, or the time constant of an
    exponential one; 0 leaves the score as it is. Raises `RequestError` for thresholds outside [0, 1], an `off` above
    `on`, and durations below zero.
    """

    on: float = 0.5
    off: float = 0.4
    smooth: float = 0.0
    smoothing: Smoothing = "mean"
    min_on: float = 0.0
    min_off: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.off <= self.on <= 1:
            raise RequestError(f"--on {self.on:g} and --off {self.off:g}: give scores from 0 to 1, off not above on")
        for name in ("smooth", "min_on", "min_off"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"--{name.replace('_', '-')} {getattr(self, name):g}: give seconds, 0 or more")


@dataclass(frozen=True)
class Alarm:
    """From the start of the first window at `on`, to the end of the last at `off`, none while it goes on.

    It begins no earlier than the one before it ended, though windows may overlap. `peak`: the highest smoothed score
    so far, of the window whose centre is `peak_at`. All times in seconds.
    """

    on: float
    off: float | None
    peak: float
    peak_at: float


class AlarmWatch:
    """Windows in their order in, alarms out: one when it is raised, with no end, and again when it has ended."""

    def __init__(self, rule: AlarmRule) -> None:
        self.rule = rule
        self.held: deque[tuple[float, float]] = deque()
        self.average: tuple[float, float] | None = None
        self.begun: Alarm | None = None
        self.raised = False
        self.free = 0.0

    def update(self, start: float, end: float, score: float) -> list[Alarm]:
        """What the window from `start` to `end` seconds changes."""
        level = self._smooth(end, score)
        start = max(start, self.free)
        at = (start + end) / 2
        if not self.raised:
            if level < self.rule.on:
                self.begun = None
                return []
            self.begun = _seen(self.begun or Alarm(start, end, level, at), end, level, at)
            if end - self.begun.on < self.rule.min_on - 1e-9:
                return []
            self.raised = True
            return [Alarm(self.begun.on, None, self.begun.peak, self.begun.peak_at)]
        assert self.begun is not None
        assert self.begun.off is not None
        if level >= self.rule.off:
            self.begun = _seen(self.begun, end, level, at)
            return []
        return self._end() if end - self.begun.off >= self.rule.min_off - 1e-9 else []

    def interrupt(self) -> list[Alarm]:
        """Nothing is known of what follows: an alarm ends with the last window that kept it up."""
        ended = self._end() if self.raised else []
        self.held.clear()
        self.begun, self.average = None, None
        return ended

    def _end(self) -> list[Alarm]:
        assert self.begun is not None
        assert self.begun.off is not None
        self.free = self.begun.off
        ended, self.begun, self.raised = [self.begun], None, False
        return ended

    def _smooth(self, end: float, score: float) -> float:
        seconds = self.rule.smooth
        if seconds <= 0:
            return score
        if self.rule.smoothing == "exponential":
            if self.average is not None:
                before, level = self.average
                score = level + (1 - math.exp(-(end - before) / seconds)) * (score - level)
            self.average = (end, score)
            return score
        self.held.append((end, score))
        while self.held[0][0] <= end - seconds + 1e-9:
            self.held.popleft()
        return math.fsum(value for _, value in self.held) / len(self.held)


def _seen(alarm: Alarm, end: float, level: float, at: float) -> Alarm:
    higher = level > alarm.peak
    return Alarm(alarm.on, end, level if higher else alarm.peak, at if higher else alarm.peak_at)
