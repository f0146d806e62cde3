"""The weight of a task over a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """When a task counts, in shares of the run: not before `begin` or after `end`; its weight rises over `ramp`."""

    begin: float = 0.0
    end: float = 1.0
    ramp: float = 0.0

    def share(self, progress: float) -> float:
        """The factor in [0, 1] on the task's weight at `progress` in [0, 1]."""
        if progress < self.begin or (progress > self.end):
            return 0.0
        return min((progress - self.begin) / self.ramp, 1.0) if self.ramp else 1.0
