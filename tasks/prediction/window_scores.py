"""Class scores and gate weights over the time of one recording, or of a source that never ends."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...shards.clip_spec import ClipSpec
from ...shards.clips.application import Application
from ...shards.clips.piece import Piece, Window
from ...shards.live.live_source import Gap, LiveSource
from ...shards.live.pieces import recording_pieces
from ...shards.live.prefetch import Ahead
from ...shards.media.damaged_packets import Damage

if TYPE_CHECKING:
    from ...fusion.bundle.bundle import Bundle


@dataclass(frozen=True)
class Prediction:
    """One piece: `start`, `end` in seconds; `probabilities` by class and `gates` by modality, means over its views;
    which modalities were `present`; `whole`: it is all of the recording, scored as evaluation scores a clip;
    `calibrated`: the probabilities by the model's temperature, where it has one; `time`: of a live source, the time
    of day at its start, ISO 8601 in UTC."""

    start: float
    end: float
    probabilities: dict[str, float]
    gates: dict[str, float]
    present: list[str]
    whole: bool = False
    calibrated: dict[str, float] | None = None
    time: str | None = None

    def facts(self) -> dict[str, Any]:
        """All that is known, as plain values."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Scorer(Protocol):
    """A classifier ready to score windows. `positive`: the class to find, where it was trained for one;
    `application`: how it is applied to a recording."""

    application: Application

    @property
    def spec(self) -> ClipSpec: ...
    @property
    def modalities(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def positive(self) -> str | None: ...
    @property
    def multilabel(self) -> bool: ...

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
    """A recording as the model was evaluated: one that is as short as clips were is one, a longer one is in pieces.

    `files`: `video`, and other modalities' files by name; `hop`: pieces in any case, one every so many seconds;
    `rates`: Hz of those that do not tell; `damage`: counts the packets that cannot be decoded, each of which is a
    fault without it. What is read before a fault is predicted before it is raised. Raises `RequestError` where the
    bundle is no classifier, `ValueError` and what decoding raises where the recording cannot be read.
    """
    scorer = scorer_of(bundle)
    pieces = recording_pieces(files, scorer.spec, scorer.modalities, scorer.application, hop, rates, damage)
    yield from predict_pieces(scorer, pieces, batch_size)


def predict_pieces(scorer: Scorer, pieces: Iterator[Piece], batch_size: int = 4) -> Iterator[Prediction]:
    """Predictions of pieces, which are made in a thread ahead of the model.

    Batches begin with one piece, so that the first comes soon, and grow to `batch_size`.
    """
    size = 1
    with Ahead(pieces, batch_size) as ahead:
        while held := ahead.take(min(size, batch_size), whole=True):
            yield from _score(scorer, held)
            size *= 2


def predict_live(
    bundle: "Bundle | Scorer", source: LiveSource, hop: float | None = None, batch_size: int = 4
) -> Iterator[Prediction | Gap]:
    """The pieces of a live source, with the gaps in it: each as soon as it is there.

    Raises what `LiveSource` does, after the predictions of what came before.
    """
    scorer = scorer_of(bundle)
    with ExitStack() as stack:
        pieces = source.slide(scorer.spec, scorer.modalities, scorer.application, hop)
        ahead = stack.enter_context(Ahead(pieces, batch_size))
        stack.callback(source.close)
        while held := ahead.take(batch_size):
            shown: list[Piece] = []
            for item in held:
                if isinstance(item, Piece):
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
    from .torch_scorer import EagerScorer

    return EagerScorer(bundle)  # pyright: ignore[reportArgumentType]


def _score(scorer: Scorer, pieces: list[Piece]) -> list[Prediction]:
    if not pieces:
        return []
    probabilities, weights = scorer.score([view for piece in pieces for view in piece.views])
    found, first = [], 0
    for piece in pieces:
        views = slice(first, first + len(piece.views))
        first = views.stop
        chances, gates = (values[views].mean(axis=0, dtype=np.float64) for values in (probabilities, weights))
        found.append(
            Prediction(
                round(piece.start, 3),
                round(piece.end, 3),
                dict(zip(scorer.classes, chances.tolist(), strict=True)),
                dict(zip(scorer.modalities, gates.tolist(), strict=True)),
                piece.present,
                piece.whole,
                calibrate(scorer, chances),
                None if piece.clock is None else time_of_day(piece.clock),
            )
        )
    return found


def calibrate(scorer: Scorer, probabilities: NDArray[np.float64]) -> dict[str, float] | None:
    """The probabilities (C,) of one clip by the model's temperature, where it has one."""
    temperature = scorer.application.temperature
    if temperature is None or scorer.multilabel:
        return None
    from ..metrics.calibration import apply_temperature

    scaled = apply_temperature(probabilities[None], temperature)[0]
    return dict(zip(scorer.classes, scaled.tolist(), strict=True))


def time_of_day(clock: float) -> str:
    """Unix time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(clock, UTC).isoformat(timespec="milliseconds")
