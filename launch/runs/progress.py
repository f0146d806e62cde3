"""Progress: a bar on a terminal, else a plain line now and then."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TextIO

PLAIN_SECONDS = 30.0
# The first reports are slow: processes start, caches fill, a compiler runs. The time left is shown after ENOUGH
# further reports, from the NEWEST of them.
WARM_UP, ENOUGH, NEWEST = 2, 2, 50


class Pace:
    """Recent speed in units per second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._early = clock, WARM_UP - 1
        self._reports: deque[tuple[float, int]] = deque(maxlen=NEWEST)

    def add(self, done: int) -> None:
        """Records that `done` units are done."""
        if self._early > 0:
            self._early -= 1
            return
        self._reports.append((self._clock(), done))

    def rate(self) -> float | None:
        """Units per second; None until enough is done after the warm-up."""
        if len(self._reports) <= ENOUGH:
            return None
        (began, before), (now, done) = self._reports[0], self._reports[-1]
        return (done - before) / (now - began) if now > began else None

    def left(self, units: int) -> str:
        """Time left for `units`, in minutes and seconds; empty if unknown."""
        rate = self.rate()
        return f"{_minutes(units / rate)} left" if rate else ""


class Advance(Protocol):
    """Reports `count` more units done; `fields` are shown by name with the bar; numbers are rounded."""

    def __call__(self, count: int = 1, **fields: object) -> None: ...


class Report(Protocol):
    """Reports that `done` of `total` are done, `rejected` of them as unusable."""

    def __call__(self, done: int, total: int, rejected: int = 0, /) -> None: ...


@contextmanager
def track(
    total: int,
    label: str,
    *,
    start: int = 0,
    show: bool = True,
    began: float | None = None,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Advance]:
    """Shows the progress of `total` units, `start` of them done before, on `stream` (default: standard error).

    On a terminal: bar, count, time left and the last fields. Elsewhere: a line at the first report, then every 30
    seconds, and at the end. Without `show` (every process but the first): nothing. `began`: the clock when the work
    started, if before this call.
    """
    if not show:
        yield lambda count=1, **fields: None
        return
    output = stream or sys.stderr
    if output.isatty():
        yield from _bar(total, label, start, output, clock)
        return
    began = clock() if began is None else began
    shown, done, facts, pace = -math.inf, start, {}, Pace(clock)

    def line() -> None:
        seconds, rate = clock() - began, pace.rate()
        parts = [f"{label} {done}/{total}"]
        if done < total and rate:
            parts += [f"{rate:.3g}/s", pace.left(total - done)]
        elif done >= total and seconds > 0 and done > start:
            parts += [f"{(done - start) / seconds:.3g}/s", f"in {_minutes(seconds)}"]
        parts += [f"{key} {text}" for key, text in facts.items()]
        print(" | ".join(parts), file=output, flush=True)

    def advance(count: int = 1, **fields: object) -> None:
        nonlocal done, shown
        done += count
        if count:
            pace.add(done)
        facts.update(_texts(fields))
        if done < total and clock() - shown >= PLAIN_SECONDS:
            shown = clock()
            line()

    yield advance
    line()


@contextmanager
def counted(label: str) -> Iterator[Report]:
    """Progress of work that counts itself: its first report gives the total and what was done before."""
    with ExitStack() as stack:
        advance: Advance | None = None
        before, began = 0, time.monotonic()

        def report(done: int, total: int, rejected: int = 0) -> None:
            nonlocal advance, before
            if advance is None:
                advance = stack.enter_context(track(total, label, start=done, began=began))
                before = done
            fields: dict[str, object] = {"rejected": rejected} if rejected else {}
            advance(done - before, **fields)
            before = done

        yield report


def _bar(total: int, label: str, start: int, stream: TextIO, clock: Callable[[], float]) -> Iterator[Advance]:
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    class WithFacts(Progress):
        """The fields are printed under the bar, on as many lines as needed, because they do not fit next to it."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            if facts:
                yield Text("  ".join(f"{key} {text}" for key, text in facts.items()), style="dim")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    facts: dict[str, str] = {}
    with WithFacts(*columns, console=Console(file=stream)) as progress:
        task, done, pace = progress.add_task(label, total=total, completed=start, left=""), start, Pace(clock)

        def advance(count: int = 1, **fields: object) -> None:
            nonlocal done
            done += count
            if count:
                pace.add(done)
            facts.update(_texts(fields))
            progress.update(task, advance=count, left=pace.left(total - done) if done < total else "")

        yield advance


def _texts(fields: dict[str, object]) -> dict[str, str]:
    return {key: f"{value:.3g}" if isinstance(value, float) else str(value) for key, value in fields.items()}


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"
