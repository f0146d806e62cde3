"""Class scores and gate weights over the time of one recording, or of a source that never ends."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from ..shards.ahead import Ahead
from ..shards.clip_spec import ClipSpec
from ..shards.damage import Damage
from ..shards.live import Gap, LiveSource
from ..shards.sliding import Window, slide

if TYPE_CHECKING:
    from ..fusion.bundle import Bundle


@dataclass(frozen=True)
class Prediction:
    """One window: `start`, `end` in seconds; `probabilities` by class; `gates` by modality; which were `present`;
    `time`: of a live source, the time of day at its start, ISO 8601 in UTC."""

    start: float
    end: float
    probabilities: dict[str, float]
    gates: dict[str, float]
    present: list[str]
    time: str | None = None


class Scorer(Protocol):
    """A classifier ready to score windows. `positive`: the class to find, where it was trained for one."""

    @property
    def spec(self) -> ClipSpec: ...
    @property
    def modalities(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def positive(self) -> str | None: ...

    def score(self, windows: list[Window]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Probabilities (n, C) and gate weights (n, M) of at least one window."""
        ...


def predict(
    bundle: "Bundle | Scorer",
    files: dict[str, Path],
    hop: float | None = None,
    batch_size: int = 4,
    rates: dict[str, float] | None = None,
    damage: Damage | None = None,
) -> Iterator[Prediction]:
    """Windows every `hop` seconds (half a window by default) over a recording of any length, prepared as in packing.

    `files`: `video`, and other modalities' files by name; `rates`: Hz of those that do not tell; `damage`: counts the
    packets that cannot be decoded, each of which is a fault without it. Every frame is decoded once, in a thread
    ahead of the model. Batches begin with one window, so that the first comes soon, and grow to `batch_size`. What is
    read before a fault is predicted before it is raised. Raises `RequestError` where the bundle is no classifier,
    `ValueError` and what decoding raises where the recording cannot be read.
    """
    scorer = scorer_of(bundle)
    size = 1
    with Ahead(slide(files, scorer.spec, scorer.modalities, hop, rates, damage), batch_size) as windows:
        while held := windows.take(min(size, batch_size), whole=True):
            yield from _score(scorer, held)
            size *= 2


def predict_live(
    bundle: "Bundle | Scorer", source: LiveSource, hop: float | None = None, batch_size: int = 4
) -> Iterator[Prediction | Gap]:
    """The same of a live source, with the gaps in it: each window as soon as it is there.

    Raises what `LiveSource` does, after the predictions of what came before.
    """
    scorer = scorer_of(bundle)
    with ExitStack() as stack:
        windows = stack.enter_context(Ahead(source.slide(scorer.spec, scorer.modalities, hop), batch_size))
        stack.callback(source.close)
        while held := windows.take(batch_size):
            shown: list[Window] = []
            for item in held:
                if isinstance(item, Window):
                    shown.append(item)
                    continue
                yield from _score(scorer, shown)
                yield item
                shown = []
            yield from _score(scorer, shown)


def scorer_of(bundle: "Bundle | Scorer") -> Scorer:
    """A bundle's classifier as a scorer; one that is a scorer already stays as it is."""
    if hasattr(bundle, "score"):
        return bundle  # pyright: ignore[reportReturnType]
    from .eager import EagerScorer

    return EagerScorer(bundle)  # pyright: ignore[reportArgumentType]


def _score(scorer: Scorer, windows: list[Window]) -> list[Prediction]:
    if not windows:
        return []
    probabilities, weights = scorer.score(windows)
    return [
        Prediction(
            round(window.start, 3),
            round(window.end, 3),
            dict(zip(scorer.classes, chances, strict=True)),
            dict(zip(scorer.modalities, gates, strict=True)),
            list(window.streams),
            None if window.clock is None else time_of_day(window.clock),
        )
        for window, chances, gates in zip(windows, probabilities.tolist(), weights.tolist(), strict=True)
    ]


def time_of_day(clock: float) -> str:
    """Unix time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(clock, UTC).isoformat(timespec="milliseconds")
