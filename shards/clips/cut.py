"""Cut windows from a packed clip, for the modalities it has."""

import math
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clip_spec import ClipSpec
from ..index.location import FolderReader
from ..index.members import stored_rate
from ..index.table import Sample
from ..media.pack_settings import PackSettings
from ..modality import modality
from .application import Application
from .decode import decode_frames, decode_signal, decode_sound
from .piece import Piece, Window
from .windows import frame_times

# Pieces decoded at a time, to bound the memory for long clips.
TOGETHER = 32


def cut_clip(
    files: FolderReader,
    sample: Sample,
    settings: PackSettings,
    modalities: Sequence[str],
    starts: NDArray[np.float64],
    seconds: float,
    frames: int,
    size: int,
    crop: tuple[float, float] = (0.5, 0.5),
    covered: float | None = None,
) -> dict[str, NDArray[Any]]:
    """Returns the windows of `cut_members` for a sample of packed shards. Also raises `OSError`."""

    def read(suffix: str) -> bytes:
        return files.read(sample.shard, *sample.members[suffix])

    return cut_members(read, sample.members, settings, modalities, starts, seconds, frames, size, crop, covered)


def cut_members(
    read: Callable[[str], bytes],
    members: Container[str],
    settings: PackSettings,
    modalities: Sequence[str],
    starts: NDArray[np.float64],
    seconds: float,
    frames: int,
    size: int,
    crop: tuple[float, float] = (0.5, 0.5),
    covered: float | None = None,
) -> dict[str, NDArray[Any]]:
    """Returns K windows of each modality: video (K, T, C, H, W), audio (K, N), signals (K, N, C).

    - `read`: returns the bytes of a member by suffix.
    - `members`: suffixes of the clip's members. Modalities without a member are skipped.
    - `starts`: start times (K,) in seconds.
    - `seconds`, `frames`, `size`: length, video frames and picture side of a window.
    - `crop`: position of the square along the longer side, (vertical, horizontal) in [0, 1].
    - `covered`: seconds of the clip that a window takes and plays in `seconds`. Default: `seconds`. Has no effect on
      sound.

    Raises `ValueError`, and the errors of reading and decoding.
    """
    streams: dict[str, NDArray[Any]] = {}
    covered = seconds if covered is None else covered
    for name in modalities:
        entry = modality(name)
        if entry.suffix not in members:
            continue
        data = read(entry.suffix)
        if entry.kind == "video":
            times = frame_times(starts, covered, frames)
            streams[name] = decode_frames(data, times, settings.fps, entry, size, crop)
        elif entry.kind == "audio":
            streams[name] = decode_sound(data, starts, seconds, settings.sample_rate)
        else:
            rate = stored_rate(read("json"), name)
            read_at = entry.rate or rate
            step = covered / seconds / read_at
            streams[name] = decode_signal(data, entry, rate, starts, round(seconds * read_at), step)
    return streams


def whole_piece(
    read: Callable[[str], bytes],
    members: Container[str],
    settings: PackSettings,
    duration: float,
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
) -> Piece:
    """Returns a packed clip as the one piece that evaluation makes of it.

    Raises `ValueError` if it has none of `modalities`, and the errors of `cut_members`.
    """
    _check(members, modalities)
    starts = application.starts(spec, duration)
    covered = spec.covered(duration)
    view = spec.seconds, spec.frames, spec.size
    streams = cut_members(read, members, settings, modalities, starts, *view, covered=covered)
    return Piece(0.0, duration, _views(starts, covered, streams), whole=True)


def slide_clip(
    files: FolderReader,
    settings: PackSettings,
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    hop: float | None,
    sample: Sample,
) -> Iterator[Piece]:
    """Yields the pieces of a packed clip: the whole clip, or with a `hop` sliding pieces as in `sliding.slide`.

    Flow is read from the shard, not computed again. Raises `ValueError` if the clip has none of `modalities`, and the
    errors of `cut_clip`.
    """
    duration = sample.duration
    if hop is None:

        def read(suffix: str) -> bytes:
            return files.read(sample.shard, *sample.members[suffix])

        yield whole_piece(read, sample.members, settings, duration, spec, modalities, application)
        return
    _check(sample.members, modalities)
    length, step = min(application.piece, duration), application.step(hop)
    covered, inside = spec.covered(length), application.starts(spec, length)
    count = 1 + math.floor((duration - length + 1e-6) / step)
    for first in range(0, count, TOGETHER):
        begins = np.arange(first, min(first + TOGETHER, count), dtype=np.float64) * step
        starts = (begins[:, None] + inside).reshape(-1)
        view = spec.seconds, spec.frames, spec.size
        streams = cut_clip(files, sample, settings, modalities, starts, *view, covered=covered)
        for number, begin in enumerate(begins.tolist()):
            own = slice(number * len(inside), (number + 1) * len(inside))
            held = {name: values[own] for name, values in streams.items()}
            yield Piece(begin, begin + length, _views(starts[own], covered, held))


def _views(starts: NDArray[np.float64], covered: float, streams: dict[str, NDArray[Any]]) -> tuple[Window, ...]:
    return tuple(
        Window(start, start + covered, {name: values[number] for name, values in streams.items()})
        for number, start in enumerate(starts.tolist())
    )


def _check(members: Container[str], modalities: tuple[str, ...]) -> None:
    if not any(modality(name).suffix in members for name in modalities):
        raise ValueError(f"it has none of {', '.join(modalities)}")
