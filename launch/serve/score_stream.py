"""A recording's scores as lines, streamed while it is read or collected for one answer."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from ...fusion.bundle.bundle import Bundle
from ...shards.errors import DataError
from ...shards.index.unreadable import UNREADABLE, reason_of
from ...tasks.prediction.highlights import Highlight, highlights
from ...tasks.prediction.overall import Overall
from ...tasks.prediction.window_scores import Prediction, predict_pieces, scorer_of
from .decoder_process import Decoder, Job, Undecodable
from .uploads import Upload
from .waiting_queue import Turns

# Pieces scored at a time: few, so that they appear soon.
BATCH = 4
# Pieces of one recording.
MOST_WINDOWS = 20_000
TOO_MANY = f"it has more than {MOST_WINDOWS} pieces: give a larger hop"
STOPPED = "it was abandoned"
# Seconds after the deadline in which the end of the answer must be read.
GRACE = 10.0

Line = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """`hop`: seconds between pieces, None: as the model is applied. At most `frames` pictures of the highest
    scores, of `class_name` if given.
    """

    hop: float | None = None
    frames: int = 6
    class_name: str | None = None


@dataclass(frozen=True)
class Limits:
    """Limits on one recording: seconds of it, seconds to score it, and MB of 2^20 bytes to decode it."""

    max_seconds: float = 3600.0
    deadline: float = 600.0
    max_memory: int = 1024


async def score(
    bundle: Bundle, turns: Turns, uploads: dict[str, Upload], wish: Wish, limits: Limits | None = None
) -> AsyncGenerator[Line]:
    """Lines by `kind`: one `recording`, a `window` per piece, the `clip`, `frames`, a `note` after a fault or damage,
    `end`.

    The recording is decoded in a separate process (see `Decoder`), which is killed at the deadline. The first line
    comes with the first window. Raises `Full` before it waits, `DataError`, in one line, without any window, and
    `Stopping`.
    """
    limits = limits or Limits()
    name = next(iter(uploads.values())).name
    windows: list[Prediction] = []
    note: str | None = None
    pictures: list[Line] = []
    scorer = scorer_of(bundle)
    overall = Overall(scorer)
    files = {role: upload.path for role, upload in uploads.items()}
    job = Job(
        files, scorer.spec, scorer.modalities, scorer.application, wish.hop, limits.max_seconds, limits.max_memory
    )
    with turns.admit():
        async with turns.turn():
            decoder = await turns.call(lambda: Decoder(job))
            with decoder, _deadline(decoder, limits.deadline):
                try:
                    duration = await turns.call(decoder.duration)
                    _check_count(duration, wish.hop or scorer.application.hop)
                    predictions = predict_pieces(scorer, decoder.pieces(), BATCH)
                    async with aclosing(turns.iterate(predictions)) as steps:
                        try:
                            async for window in steps:
                                if not windows:
                                    yield _recording(name, duration, window)
                                windows.append(window)
                                overall.add(window)
                                yield {"kind": "window"} | window.facts()
                                if len(windows) > MOST_WINDOWS:
                                    decoder.stop(TOO_MANY)
                                    raise Undecodable(TOO_MANY)
                        except UNREADABLE:
                            raise
                        except BaseException:
                            # A step that waits for the decoder must end before the generator can be closed.
                            decoder.stop(STOPPED)
                            raise
                except UNREADABLE as error:
                    note = unreadable(uploads, windows, error)
                    if not windows:
                        raise DataError(note) from error
                chosen = highlights(windows, wish.frames, wish.class_name)
                pictures = await turns.call(lambda: _pictures(decoder, chosen))
    if note is None:
        yield {"kind": "clip", "clip": overall.facts()}
    yield {"kind": "frames", "frames": pictures}
    if note is None and decoder.damage:
        note = f"'{name}': {decoder.damage}"
    if note is not None:
        yield {"kind": "note", "note": note}
    yield {"kind": "end", "windows": len(windows)}


@contextmanager
def _deadline(decoder: Decoder, seconds: float) -> Iterator[None]:
    """Stops decoding after `seconds`, and soon after it the whole answer, whose reader may have stopped reading."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    soft = loop.call_later(seconds, decoder.stop, f"it is not scored after {seconds:g} s (--deadline)")
    hard = loop.call_later(seconds + GRACE, task.cancel)
    try:
        yield
    finally:
        soft.cancel()
        hard.cancel()


def _check_count(duration: float, hop: float) -> None:
    if duration > MOST_WINDOWS * hop:
        raise Undecodable(TOO_MANY)


def unreadable(uploads: dict[str, Upload], windows: Sequence[Prediction], error: Exception) -> str:
    """The line that the command line prints for the same recording, with the names given by the client."""
    reason = reason_of(error)
    for upload in uploads.values():
        reason = reason.replace(f"'{upload.path.name}'", f"'{upload.name}'")
    end = f", beyond {windows[-1].end:g} s," if windows else ""
    return f"'{next(iter(uploads.values())).name}'{end} cannot be read: {reason}"


def _recording(name: str, duration: float, window: Prediction) -> Line:
    classes, modalities = list(window.probabilities), list(window.gates)
    return {"kind": "recording", "file": name, "duration": duration, "classes": classes, "modalities": modalities}


def _pictures(decoder: Decoder, chosen: list[Highlight]) -> list[Line]:
    try:
        images = decoder.stills([one.time for one in chosen])
    except Undecodable:
        # The process that decodes has died. The note says so.
        images = [None] * len(chosen)
    return [
        {
            "start": one.start,
            "end": one.end,
            "time": one.time,
            "class": one.class_name,
            "score": one.score,
            "image": None if picture is None else f"data:image/jpeg;base64,{b64encode(picture).decode()}",
        }
        for one, picture in zip(chosen, images, strict=True)
    ]
