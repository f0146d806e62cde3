"""The weight of a task over a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """When a task is trained, in shares of the run.

    begin: before it the weight is zero.
    end: after it the weight is zero.
    ramp: length of the linear rise of the weight after `begin`.
    """

    begin: float = 0.0
    end: float = 1.0
    ramp: float = 0.0

    def share(self, progress: float) -> float:
        """The factor in [0, 1] of the task's weight at `progress` in [0, 1].

        >>> Schedule(begin=0.5, ramp=0.25).share(0.625)
        0.5
        """
        if progress < self.begin or (progress > self.end):
            return 0.0
        return min((progress - self.begin) / self.ramp, 1.0) if self.ramp else 1.0
