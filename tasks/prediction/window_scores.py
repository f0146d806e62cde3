"""Class scores and gate weights over the time of a recording or a live source."""

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
from ...shards.media.pack_settings import PackSettings

if TYPE_CHECKING:
    from ...fusion.bundle.bundle import Bundle


@dataclass(frozen=True)
class Prediction:
    """Prediction of one piece."""

    start: float
    """Start in seconds."""
    end: float
    """End in seconds."""
    probabilities: dict[str, float]
    """Probability by class, mean over views."""
    gates: dict[str, float]
    """Gate weight by modality, mean over views."""
    present: list[str]
    """Modalities that are present."""
    whole: bool = False
    """Whether the piece is the whole recording, scored as evaluation scores a clip."""
    calibrated: dict[str, float] | None = None
    """Probabilities after the model's temperature, if it has one."""
    time: str | None = None
    """For a live source: time of day at the start, ISO 8601 in UTC."""

    def facts(self) -> dict[str, Any]:
        """Returns all known values as plain data."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Scorer(Protocol):
    """A classifier that scores windows.

    `positive` is the class to detect, if there is one. `application` says how the classifier is applied to a
    recording.
    """

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
        """Returns probabilities (n, C) and gate weights (n, M) of at least one window."""
        ...


def predict(
    bundle: "Bundle | Scorer",
    files: dict[str, Path],
    hop: float | None = None,
    batch_size: int = 4,
    rates: dict[str, float] | None = None,
    damage: Damage | None = None,
    max_seconds: float = PackSettings.max_seconds,
) -> Iterator[Prediction]:
    """Yields the predictions of a recording, scored as in evaluation.

    A recording no longer than the training clips is one piece. A longer one is divided into pieces.

    - `files`: path by modality. `video` holds picture and sound.
    - `hop`: seconds between pieces. Divides short recordings too.
    - `rates`: frame or sample rate in Hz of files that do not state it.
    - `damage`: counts packets that cannot be decoded. None: such a packet is an error.
    - `max_seconds`: longest recording.

    Everything read before an error is predicted before it is raised. Raises `RequestError` if the bundle is not a
    classifier. Raises `ValueError`, or the error of the decoder, if the recording cannot be read.
    """
    scorer = scorer_of(bundle)
    pieces = recording_pieces(
        files, scorer.spec, scorer.modalities, scorer.application, hop, rates, damage, max_seconds
    )
    yield from predict_pieces(scorer, pieces, batch_size)


def predict_pieces(scorer: Scorer, pieces: Iterator[Piece], batch_size: int = 4) -> Iterator[Prediction]:
    """Yields the predictions of pieces. A thread prepares pieces ahead of the model.

    The first batch has one piece, so that its prediction comes early. Batches grow to `batch_size`.
    """
    size = 1
    with Ahead(pieces, batch_size) as ahead:
        while held := ahead.take(min(size, batch_size), whole=True):
            yield from _score(scorer, held)
            size *= 2


def predict_live(
    bundle: "Bundle | Scorer", source: LiveSource, hop: float | None = None, batch_size: int = 4
) -> Iterator[Prediction | Gap]:
    """Yields the predictions and gaps of a live source as they come.

    Raises the errors of `LiveSource`, after the predictions of earlier pieces.
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
    """Returns a scorer for the classifier of a bundle. A scorer is returned unchanged."""
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
    """Returns the probabilities (C,) of one clip after the model's temperature, or None if it has none."""
    temperature = scorer.application.temperature
    if temperature is None or scorer.multilabel:
        return None
    from ..metrics.calibration import apply_temperature

    scaled = apply_temperature(probabilities[None], temperature)[0]
    return dict(zip(scorer.classes, scaled.tolist(), strict=True))


def time_of_day(clock: float) -> str:
    """Returns a Unix time as ISO 8601 in UTC, to the millisecond.

    >>> time_of_day(0.25)
    '1970-01-01T00:00:00.250+00:00'
    """
    return datetime.fromtimestamp(clock, UTC).isoformat(timespec="milliseconds")
