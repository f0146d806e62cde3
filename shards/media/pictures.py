"""Pictures at a constant rate from a video file, a folder of frames or an array."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import ARRAY_SUFFIXES, open_array
from .container_io import FrameReader, MediaFacts, allow_pixels, iterate_frames, probe
from .damaged_packets import Damage
from .pack_settings import PackSettings

# Seconds without a picture that are a wrong time stamp.
MOST_GAP = 3600.0
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def read_pictures(
    path: Path,
    reader: FrameReader,
    settings: PackSettings,
    rate: float | None = None,
    damage: Damage | None = None,
    spare: bool = False,
) -> Iterator[NDArray[Any]]:
    """Yields stacks (T, H, W, ...) of the pictures of `iterate_pictures`, each at most `settings.clip_seconds` long.

    `spare`: every full stack ends with one more picture, the first of the next stack, to compute the flow up to it.

    Takes the same arguments and raises the same errors. Also raises `ValueError` for fewer than two pictures.
    """
    per_piece = max(round(settings.clip_seconds * settings.fps), 2) + spare
    stack: list[NDArray[Any]] = []
    count = 0
    for picture in iterate_pictures(path, reader, settings, rate, damage):
        count += 1
        stack.append(picture)
        if len(stack) == per_piece:
            yield np.stack(stack)
            stack = [picture] if spare else []
    if count < 2:
        raise ValueError(f"'{path.name}' has {count} frame at {settings.fps:g} per second, at least 2 are needed")
    if len(stack) >= 2:
        yield np.stack(stack)


def iterate_pictures(
    path: Path,
    reader: FrameReader,
    settings: PackSettings,
    rate: float | None = None,
    damage: Damage | None = None,
) -> Iterator[NDArray[Any]]:
    """Yields pictures (H, W, ...) at `settings.fps`, as `at_constant_rate` chooses them.

    - `path`: a video file; a folder of JPEG or PNG frames, ordered by the numbers in their names; or an array, NPY
      (T, H, W) or MATLAB (H, W, T).
    - `rate`: pictures per second of a folder or array.
    - `damage`: counts undecodable packets of a video file, see `iterate_frames`.

    Raises `ValueError` if the size changes or exceeds `settings.max_pixels`, if the duration exceeds
    `settings.max_seconds`, if a folder or array has no rate, and for a truncated video. Raises the errors of reading.
    """
    allow_pixels(settings.max_pixels)
    facts, frames = _open(path, rate, damage)
    # Checked before decoding: a small file can announce a picture that fills the memory.
    check_pixels(path, round(facts.width * facts.aspect), facts.height, settings)
    reader.aspect = facts.aspect
    check_seconds(path.name, max(facts.duration, facts.video_seconds), settings)
    shape: tuple[int, ...] | None = None
    for picture in at_constant_rate(path.name, frames, reader, settings, facts):
        shape = shape or picture.shape
        if picture.shape != shape:
            raise ValueError(f"'{path.name}' changes its size from {shape} to {picture.shape}")
        yield picture


def check_pixels(path: Path, width: int, height: int, settings: PackSettings) -> None:
    """Raises `ValueError` for a picture larger than `settings.max_pixels`, or of unknown size: FFmpeg reports none if
    the picture is far too large.
    """
    if not width * height:
        raise ValueError(
            f"'{path.name}' has pictures that cannot be decoded, or of more than {settings.max_pixels} pixels "
            "(--max-pixels)"
        )
    if width * height > settings.max_pixels:
        raise ValueError(
            f"'{path.name}' has pictures of {width} x {height} pixels, more than {settings.max_pixels} (--max-pixels)"
        )


def check_seconds(name: str, seconds: float, settings: PackSettings) -> None:
    """Raises `ValueError` for a duration above `settings.max_seconds`."""
    if seconds > settings.max_seconds:
        raise ValueError(f"'{name}' lasts {seconds:g} s, more than {settings.max_seconds:g} (--max-seconds)")


def _open(path: Path, rate: float | None, damage: Damage | None) -> tuple[MediaFacts, Iterator[tuple[float, Any]]]:
    """Returns the facts known beforehand, and an iterator of (seconds, picture)."""
    if path.is_dir() or path.suffix.lower() in ARRAY_SUFFIXES:
        if rate is None:
            raise ValueError(f"'{path.name}' has no frame rate: give --rate, or a column such as video_rate")
        return _frame_folder(path, rate) if path.is_dir() else _frame_array(path, rate)
    facts = probe(path)
    if not facts.has_video:
        raise ValueError(f"'{path.name}' has no video stream")
    return facts, iterate_frames(path, damage)


def _frame_folder(path: Path, rate: float) -> tuple[MediaFacts, Iterator[tuple[float, Any]]]:
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_by_number)
    if not files:
        raise ValueError(f"'{path.name}' holds no JPEG or PNG frames")
    # From bytes: FFmpeg reads a name such as `frame%03d.png` as a pattern.
    first, seconds = probe(io.BytesIO(files[0].read_bytes())), len(files) / rate
    facts = replace(first, fps=rate, duration=seconds, video_seconds=seconds, has_video=True, has_sound=False)

    def frames() -> Iterator[tuple[float, Any]]:
        for number, file in enumerate(files):
            held = next(iterate_frames(io.BytesIO(file.read_bytes())), None)
            if held is None:
                raise ValueError(f"'{path.name}/{file.name}' holds no picture")
            yield number / rate, held[1]

    return facts, frames()


def _by_number(file: Path) -> tuple[list[str | int], str]:
    """Sort key in which digits count as numbers: frame9 comes before frame10."""
    parts = re.split(r"(\d+)", file.stem)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], file.name


def _frame_array(path: Path, rate: float) -> tuple[MediaFacts, Iterator[tuple[float, Any]]]:
    values = open_array(path, 3)
    if path.suffix.lower() == ".mat":
        values = np.moveaxis(values, -1, 0)
    seconds = len(values) / rate
    facts = MediaFacts(values.shape[2], values.shape[1], rate, seconds, seconds, True, False, "gray16le")
    return facts, ((number / rate, np.asarray(picture)) for number, picture in enumerate(values))


def at_constant_rate(
    name: str, frames: Iterator[tuple[float, Any]], reader: FrameReader, settings: PackSettings, facts: MediaFacts
) -> Iterator[NDArray[Any]]:
    """Yields the picture of the frame shown at each time 0, 1/fps, ..., counted from the first frame.

    That is the nearest frame where frames come at least that often. A frame that stays longer holds until half an
    output frame before the next one, as in `ffmpeg -vf fps`. Each frame is converted once.

    Raises `ValueError` at the end if a tenth or more of the duration in the header is missing: in most containers a
    truncated file decodes without an error.
    """
    origin: float | None = None
    held: Any = None
    fps, held_time, number = settings.fps, 0.0, 0
    for time, frame in frames:
        origin = time if origin is None else origin
        time -= origin
        # A wrong time stamp far ahead would be filled with copies of one picture. Headers are only roughly right.
        check_seconds(name, time, settings)
        if held is not None and time - held_time > MOST_GAP:
            raise ValueError(f"'{name}' has no picture from {held_time:.0f} to {time:.0f} s")
        if facts.duration and time - held_time > 2 * facts.duration + 10:
            raise ValueError(f"'{name}' has a frame at {time:.0f} s but lasts {facts.duration:.0f} s")
        if held is not None:
            picture = None
            # Half an output frame is the rounding of a constant rate.
            while number / fps <= max((held_time + time) / 2, time - 0.5 / fps):
                picture = reader.read(held) if picture is None else picture
                yield picture
                number += 1
        held, held_time = frame, time
    if held is None and facts.video_seconds:
        raise ValueError(f"'{name}' is cut short: none of its {facts.video_seconds:.1f} s can be decoded")
    if held is not None:
        end = max(held_time + 1 / (facts.fps or fps), min(held_time + _shown_seconds(held), facts.video_seconds))
        if end < 0.9 * facts.video_seconds:
            raise ValueError(f"'{name}' is cut short: only {end:.1f} of {facts.video_seconds:.1f} s are there")
        picture = reader.read(held)
        # Matroska rounds to milliseconds: a rounded end must not add a frame.
        while number / fps < end - 0.1 / fps:
            yield picture
            number += 1


def _shown_seconds(frame: Any) -> float:
    """Returns how long a decoded frame is shown, 0 if unknown. The last frame of a video may stay for seconds."""
    return float((getattr(frame, "duration", None) or 0) * (getattr(frame, "time_base", None) or 0))
