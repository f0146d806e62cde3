"""What is said of a training's steps: means to the tracker and the progress line, warnings once, and the best."""

import math
import sys
from collections.abc import Callable, Mapping

from ..shards.errors import choice_error
from .means import Means
from .meter import Meter
from .progress import Advance
from .tracking import Tracker


class Logbook:
    """Collects the steps between two logs, over all processes; only the first has a `tracker`.

    `last`: the newest means; `figures`: what an evaluation after this very step measured; `warnings`: of the
    objective, lines that follow from means; `best`: the metric by which a checkpoint is the best.
    """

    def __init__(
        self,
        tracker: Tracker | None,
        warnings: Callable[[Mapping[str, float]], list[str]],
        best: str | None,
        last: dict[str, float],
    ) -> None:
        self.tracker, self.best, self.last = tracker, best, last
        self.figures: dict[str, float] = {}
        self.means, self.meter = Means(), Meter()
        self._warnings, self._warned = warnings, set[str]()

    def log(self, step: int, rate: float, advance: Advance) -> None:
        """The means since the last log, after `step` steps; every process calls it."""
        self.last = {**self.means.take(), "learning_rate": rate, **self.meter.take()}
        if self.tracker is not None:
            self.tracker.log(step, self.last)
            for line in self._warnings(self.last):
                # The same thing with another number is not news.
                if (subject := line.partition("(")[0]) not in self._warned:
                    self._warned.add(subject)
                    warn(f"step {step}: {line}")
        shown = {key.removesuffix("/loss"): value for key, value in self.last.items() if key.endswith("loss")}
        shown |= {"clips/s": self.last["clips_per_second"], "wait": f"{self.last['data_wait']:.0%}"}
        advance(0, **shown, memory=f"{self.last['memory_gb']:.2g} GB")

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """What an evaluation after `step` steps measured."""
        self.figures = figures
        if self.tracker is not None:
            self.tracker.log(step, figures)

    def check_best(self) -> None:
        """`RequestError` where neither the steps nor an evaluation tell of the metric `best`."""
        known = {**self.last, **self.figures}
        if "loss" in self.last and self.best not in (None, *known):
            raise choice_error("metric for config key 'train.best'", str(self.best), known)

    def score(self) -> float | None:
        """The metric `best`, turned so that higher is better; none where it was not logged or is not finite."""
        value = {**self.last, **self.figures}.get(self.best or "")
        if self.best is None or value is None or not math.isfinite(value):
            return None
        return -value if self.best.endswith("loss") else value


def warn(line: str) -> None:
    """One line on standard error."""
    print(f"warning: {line}", file=sys.stderr)
