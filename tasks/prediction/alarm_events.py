"""Alarms from a score over time: smoothed, raised above one threshold, ended below a lower one."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from ...shards.errors import RequestError

Smoothing = Literal["mean", "exponential"]


@dataclass(frozen=True)
class AlarmRule:
    """When a score raises and ends an alarm.

    Raises `RequestError` for thresholds outside [0, 1], `off` above `on`, and negative durations.
    """

    on: float = 0.5
    """The smoothed score that raises an alarm."""
    off: float = 0.4
    """The smoothed score below which it ends."""
    smooth: float = 0.0
    """Seconds of the moving mean, or time constant of the exponential mean. 0: no smoothing."""
    smoothing: Smoothing = "mean"
    """Kind of mean."""
    min_on: float = 0.0
    """Seconds that the score must stay at `on` or above before the alarm is raised."""
    min_off: float = 0.0
    """Seconds that the score must stay below `off` before the alarm ends."""

    def __post_init__(self) -> None:
        if not 0 <= self.off <= self.on <= 1:
            raise RequestError(
                f"--on {self.on:g} and --off {self.off:g}: both must be from 0 to 1, with off at most on"
            )
        for name in ("smooth", "min_on", "min_off"):
            if not getattr(self, name) >= 0:
                raise RequestError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g}: it must be 0 seconds or more"
                )


@dataclass(frozen=True)
class Alarm:
    """One alarm. All times are in seconds."""

    on: float
    """Start of the first window at `AlarmRule.on`, but not before the end of the previous alarm."""
    off: float | None
    """End of the last window at `AlarmRule.off`. None while the alarm lasts."""
    peak: float
    """Highest smoothed score so far."""
    peak_at: float
    """Centre of the window with the highest score."""


class AlarmWatch:
    """Turns windows in order into alarms.

    An alarm is returned when it is raised, without an end, and again when it ends.
    """

    def __init__(self, rule: AlarmRule) -> None:
        self.rule = rule
        self.held: deque[tuple[float, float]] = deque()
        self.average: tuple[float, float] | None = None
        self.begun: Alarm | None = None
        self.raised = False
        self.free = 0.0

    def update(self, start: float, end: float, score: float) -> list[Alarm]:
        """Adds the window from `start` to `end` seconds. Returns the alarms that it raises or ends."""
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
        """Handles a gap in the source.

        Ends the current alarm with the last window that sustained it, and clears the smoothing.
        """
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
