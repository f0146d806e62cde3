"""A recording's scores as lines, streamed while it is read or collected for one answer."""

from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...fusion.bundle.bundle import Bundle
from ...shards.errors import DataError
from ...shards.media.accepted_containers import check_container
from ...shards.media.damaged_packets import Damage
from ...shards.media.thumbnails import stills
from ...shards.modality import MODALITIES
from ...shards.packing.rejected import UNREADABLE, reason_of
from ...tasks.prediction.highlights import Highlight, highlights
from ...tasks.prediction.overall import Overall
from ...tasks.prediction.window_scores import Prediction, predict, scorer_of
from .uploads import Upload
from .waiting_queue import Turns

# Pieces scored at a time: few, so that they appear soon.
BATCH = 4

Line = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """`hop`: seconds between pieces, None: as the model is applied. At most `frames` pictures of the highest
    scores, of `class_name` if given.
    """

    hop: float | None = None
    frames: int = 6
    class_name: str | None = None


async def score(bundle: Bundle, turns: Turns, uploads: dict[str, Upload], wish: Wish) -> AsyncGenerator[Line]:
    """Lines by `kind`: one `recording`, a `window` per piece, the `clip`, `frames`, a `note` after a fault or damage,
    `end`.

    The first line comes with the first window. Raises `DataError`, in one line, without any window, and `Stopping`.
    """
    name = next(iter(uploads.values())).name
    windows: list[Prediction] = []
    note: str | None = None
    damage = Damage()
    scorer = scorer_of(bundle)
    overall = Overall(scorer)
    async with turns.turn():
        try:
            duration = await turns.call(lambda: _check(uploads))
            files = {role: upload.path for role, upload in uploads.items()}
            predictions = predict(scorer, files, wish.hop, BATCH, damage=damage)
            async with aclosing(turns.iterate(predictions)) as steps:
                async for window in steps:
                    if not windows:
                        yield _recording(name, duration, window)
                    windows.append(window)
                    overall.add(window)
                    yield {"kind": "window"} | window.facts()
        except UNREADABLE as error:
            note = unreadable(uploads, windows, error)
            if not windows:
                raise DataError(note) from error
        chosen = highlights(windows, wish.frames, wish.class_name)
        pictures = await turns.call(lambda: _pictures(uploads.get("video"), chosen))
    if note is None:
        yield {"kind": "clip", "clip": overall.facts()}
    yield {"kind": "frames", "frames": pictures}
    if note is None and damage:
        note = f"'{name}': {damage}"
    if note is not None:
        yield {"kind": "note", "note": note}
    yield {"kind": "end", "windows": len(windows)}


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


def _check(uploads: dict[str, Upload]) -> float:
    """Seconds of the first media file; raises what `check_container` raises."""
    media = [upload.path for role, upload in uploads.items() if role == "video" or MODALITIES[role].kind != "signal"]
    return next(iter([check_container(path) for path in media]), 0.0)


def _pictures(video: Upload | None, chosen: list[Highlight]) -> list[Line]:
    return [
        {
            "start": one.start,
            "end": one.end,
            "time": one.time,
            "class": one.class_name,
            "score": one.score,
            "image": None if picture is None else f"data:image/jpeg;base64,{b64encode(picture).decode()}",
        }
        for one, picture in zip(chosen, _stills(video, [one.time for one in chosen]), strict=True)
    ]


def _stills(video: Upload | None, times: list[float]) -> list[bytes | None]:
    try:
        return stills(Path(video.path), times) if video is not None and times else [None] * len(times)
    except UNREADABLE:
        # Only sound, in a container for video.
        return [None] * len(times)
