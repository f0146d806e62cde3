"""When a task counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A task's weight over a run, in shares of it: none before `begin`, rising over `ramp`, none after `end`."""

    begin: float = 0.0
    end: float = 1.0
    ramp: float = 0.0

    def share(self, progress: float) -> float:
        """The share of its weight that a task has at `progress` in [0, 1]."""
        if progress < self.begin or (progress > self.end):
            return 0.0
        return min((progress - self.begin) / self.ramp, 1.0) if self.ramp else 1.0
