"""The record of training steps: means for the tracker and the progress bar, warnings once, and the best metric."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ...shards.errors import choice_error
from .means import Means
from .meter import Meter
from .metric_log import Tracker, read_metrics
from .progress import Advance


class Logbook:
    """Collects the steps between two logs, over all processes; only the first has a `tracker`.

    `last`: the newest means. `figures`: results of an evaluation after this step. `judged`: the newest results with
    their chance, as text. `warnings`: the objective's function from means to warnings. `best`: the metric of the best
    checkpoint.
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

    def add(self, clips: int, outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """A step on `clips` clips of all processes is done; `outputs`: its scalars, none of a skipped step."""
        self.figures = {}
        for values in outputs:
            self.means.add(values)
        self.meter.add(clips)

    def log(self, step: int, rate: float, advance: Advance) -> None:
        """Logs the means since the last log, after `step` steps; every process calls it."""
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
        """Prints the warnings that follow from the whole run, after its `step` steps."""
        if self.tracker is not None:
            lines = [line for line in read_metrics(self.tracker.run) if "loss" in line]
            for line in verdict(lines):
                self._warn(step, line)

    def _warn(self, step: int, line: str, when: str = "") -> None:
        # The same warning with another number is not printed again.
        subject = line.partition("(")[0]
        if self.tracker is not None and subject not in self._warned:
            self._warned.add(subject)
            self.tracker.warn(step, line)
            warn(f"{when}{line}")

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """Logs the `figures` of an evaluation after `step` steps."""
        self.figures = figures
        for name, value in figures.items():
            chance = figures.get(f"{name.rpartition('/')[0]}/chance")
            if chance is not None and not name.endswith("/chance"):
                self.judged[name] = f"{value:.3g} (chance {chance:.3g})"
        if self.tracker is not None:
            self.tracker.log(step, figures)

    def check_best(self) -> None:
        """Raises `RequestError` if neither the steps nor an evaluation have the metric `best`."""
        known = {**self.last, **self.figures}
        if "loss" in self.last and self.best not in (None, *known):
            raise choice_error("metric for config key 'train.best'", str(self.best), known)

    def score(self) -> float | None:
        """The metric `best` with the sign for which higher is better; None if it was not logged or is not finite."""
        value = {**self.last, **self.figures}.get(self.best or "")
        if self.best is None or value is None or not math.isfinite(value):
            return None
        return -value if self.best.endswith("loss") else value


def warn(line: str) -> None:
    """Prints one line on standard error, as a warning unless it starts with `note: `."""
    print(line if line.startswith("note: ") else f"warning: {line}", file=sys.stderr)
