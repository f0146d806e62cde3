"""What is said of a training's steps: means to the tracker and the progress line, warnings once, and the best."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence

from ...shards.errors import choice_error
from .means import Means
from .meter import Meter
from .metric_log import Tracker, read_metrics
from .progress import Advance


class Logbook:
    """Collects the steps between two logs, over all processes; only the first has a `tracker`.

    `last`: the newest means; `figures`: what an evaluation after this very step measured; `judged`: the newest of
    those that have a chance, in words; `warnings`: of the objective, lines that follow from means; `best`: the metric
    by which a checkpoint is the best.
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
        self.judged: dict[str, str] = {}
        self.means, self.meter = Means(), Meter()
        self._warnings, self._warned = warnings, set[str]()

    def log(self, step: int, rate: float, advance: Advance) -> None:
        """The means since the last log, after `step` steps; every process calls it."""
        self.last = {**self.means.take(), "learning_rate": rate, **self.meter.take()}
        if self.tracker is not None:
            self.tracker.log(step, self.last)
            for line in self._warnings(self.last):
                self._warn(step, line, f"step {step}: ")
        shown = {key.removesuffix("/loss"): value for key, value in self.last.items() if key.endswith("loss")}
        shown |= self.judged
        shown |= {"clips/s": self.last["clips_per_second"], "wait": f"{self.last['data_wait']:.0%}"}
        advance(0, **shown, memory=f"{self.last['memory_gb']:.2g} GB")

    def finish(self, step: int, verdict: Callable[[Sequence[Mapping[str, float | None]]], list[str]]) -> None:
        """Says what the lines of the whole run warn of, after the last of `step` steps."""
        if self.tracker is not None:
            lines = [line for line in read_metrics(self.tracker.run) if "loss" in line]
            for line in verdict(lines):
                self._warn(step, line)

    def _warn(self, step: int, line: str, when: str = "") -> None:
        # The same thing with another number is not news.
        subject = line.partition("(")[0]
        if self.tracker is not None and subject not in self._warned:
            self._warned.add(subject)
            self.tracker.warn(step, line)
            warn(f"{when}{line}")

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """What an evaluation after `step` steps measured."""
        self.figures = figures
        for name, value in figures.items():
            chance = figures.get(f"{name.rpartition('/')[0]}/chance")
            if chance is not None and not name.endswith("/chance"):
                self.judged[name] = f"{value:.3g} (chance {chance:.3g})"
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
    """One line on standard error, as a warning unless it says that it is a note."""
    print(line if line.startswith("note: ") else f"warning: {line}", file=sys.stderr)
