"""Read one recording as arrays: constant frame rate, one size, one clock for all streams."""

import csv
import math
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..media.arrays import ARRAY_SUFFIXES, open_array
from ..media.container_io import FrameReader, allow_pixels, iterate_frames, probe
from ..media.damaged_packets import Damage
from ..media.flow import compute_flow
from ..media.pack_settings import PackSettings
from ..media.pictures import read_pictures
from ..media.soundtrack import SoundPieces, iterate_sound
from ..modality import MODALITIES, modality, shown_by

Span = tuple[float, float]


@dataclass
class Recording:
    """One piece of a recording. All streams start at its time 0.

    - `start`, `duration`: seconds.
    - `streams`: colour (T, H, W, 3) uint8; depth and other measured pictures (T, H, W) uint16; flow and depth_flow
      (T, 2, H, W) float32 pixel/frame; sound (N,) float32 in [-1, 1]; signals (N, C) float32.
    - `rates`: Hz of each signal.
    - `silent`: a sound track's level is below the threshold, so it is not in `streams`.
    - `gaps`: by sound track, (start, end) of sound that the file lacks, in seconds of the piece. It is silent there.
    """

    start: float
    duration: float
    streams: dict[str, NDArray[Any]]
    rates: dict[str, float]
    silent: bool = False
    gaps: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)


def read_recording(
    files: dict[str, Path],
    settings: PackSettings,
    rates: dict[str, float] | None = None,
    damage: Damage | None = None,
) -> Iterator[Recording]:
    """Yields the pieces of one recording, each at most `settings.clip_seconds` long, with its `settings.modalities`.

    - `files`: path by content: `video` (with its sound) or a modality. A video file without pictures is sound.
    - `rates`: Hz of files that do not store it (signals, frame folders, arrays), by the same names. Default:
      `settings.rates`.
    - `damage`: counts undecodable packets, which are skipped. Without it, such a packet is an error.

    Flow at the end of a piece is the motion to the first frame of the next piece. A signal that is shorter than the
    pictures keeps its last value.

    Pictures and sound are decoded piece by piece. Raises `ValueError` if the recording has none of the modalities, if
    a video has fewer than two frames, and if a file exceeds the bounds of the settings. Raises `av.FFmpegError` and
    `OSError` for unreadable files.
    """
    allow_pixels(settings.max_pixels)
    wanted, files = settings.modalities, by_content(files)
    given = settings.rates | (rates or {})
    signals, rates = {}, {}
    for name in wanted:
        if modality(name).kind == "signal" and name in files:
            signals[name], rates[name] = read_signal(files[name], name, given.get(name), settings.max_seconds)
    gaps: dict[str, list[Span]] = {name: [] for name in wanted if modality(name).kind == "audio"}
    sounds = {name: _sound(files, name, settings, damage, found) for name, found in gaps.items()}
    heard = {name: sound for name, sound in sounds.items() if sound is not None}
    stored = {name: _stored_flow(files[name]) for name in wanted if modality(name).flow_of and name in files}
    if stored and settings.region is not None:
        raise ValueError("its flow covers the whole picture, not the region: remove it to have flow computed")
    pictures = {
        source: read_pictures(path, reader_of(source, settings), settings, given.get(content), damage, spare=True)
        for source, content, path in picture_files(files, wanted)
    }
    sensed = max((len(values) / rates[name] for name, values in signals.items()), default=0.0)
    per_piece = max(round(settings.clip_seconds * settings.fps), 2)
    number, total = 0, Counter[str]()
    while True:
        streams: dict[str, NDArray[Any]] = {}
        seen = {source: next(frames, None) for source, frames in pictures.items()}
        first, start = number * per_piece, number * per_piece / settings.fps
        leading = next((frames for frames in seen.values() if frames is not None), None)
        # Without pictures, as far as this piece and a little beyond.
        until = 0.0 if pictures else start + settings.clip_seconds + 1.0
        longest = max([sensed, *(sound.seconds(until) for sound in heard.values())])
        if not pictures and not longest:
            raise ValueError(f"it has none of {', '.join(wanted)}")
        if leading is None and (pictures or start >= longest):
            for name, sound in heard.items():
                sound.finish()
                if damage is not None:
                    damage.gaps += _since(gaps[name], sound.origin)
            # A single frame left at the end does not make a piece.
            for name, flow in stored.items():
                if total[name] and abs(len(flow) - total[name]) > 1:
                    raise ValueError(f"its {name} has {len(flow)} frames, its packed {_source(name)} {total[name]}")
            return
        count = 0 if leading is None else min(len(leading), per_piece)
        duration = count / settings.fps if leading is not None else min(settings.clip_seconds, longest - start)
        for source, frames in seen.items():
            if frames is None or leading is None:
                continue
            # Depth may last longer than the video, which sets the end.
            values = frames[:count]
            frames = frames[: len(values) + 1]
            for name in shown_by(source, wanted):
                streams[name] = values if name == source else _flow(name, frames, len(values), stored, first)
                total[name] += len(values)
        silent = False
        for name, sound in heard.items():
            piece = sound.cut(start, duration)
            if loudness(piece) < settings.silence_db:
                silent = True
            else:
                streams[name] = piece
        for name, values in signals.items():
            # A signal that ended before this piece is absent from it, as sound is.
            if round(start * rates[name]) < len(values):
                streams[name] = _cut(values, start, duration, rates[name], hold=True)
        missing = {name: _since(gaps[name], sound.origin) for name, sound in heard.items() if name in streams}
        lost = {name: tuple(_within(found, start, duration)) for name, found in missing.items()}
        lost = {name: parts for name, parts in lost.items() if parts}
        yield Recording(start, duration, streams, rates, silent, lost)
        number += 1


def loudness(sound: NDArray[np.float32]) -> float:
    """Returns the RMS level in dB relative to full scale; minus infinity for digital silence.

    >>> loudness(np.full(100, 0.1, np.float32)).round(3)
    np.float64(-20.0)
    """
    power = float(np.mean(np.square(sound, dtype=np.float64))) if len(sound) else 0.0
    return 10 * np.log10(power) if power > 0 else -np.inf


def read_signal(
    path: Path, name: str, rate: float | None = None, max_seconds: float = math.inf
) -> tuple[NDArray[np.float32], float]:
    """Reads a signal (N, C) from CSV (one header line allowed), NPY or MATLAB, and returns it with its rate in Hz.

    - `rate`: Hz. Default: the rate in the modality table.
    - `max_seconds`: longest signal. A longer one is not read as a whole.

    Raises `ValueError` for anything but finite numbers with the modality's channels, for a signal without a rate, and
    for one that is too long.
    """
    entry = MODALITIES[name]
    rate = rate or entry.rate
    if rate is None:
        raise ValueError(f"'{path.name}' has no rate: give --rate {name}=HZ, or a column {name}_rate")
    most = max_seconds * rate
    held = (
        open_array(path, 2, most)
        if path.suffix.lower() in ARRAY_SUFFIXES
        else _read_table(path, entry.channels, most)
    )
    if len(held) > most:
        raise ValueError(f"'{path.name}' lasts more than {max_seconds:g} s (--max-seconds)")
    values = np.asarray(held)
    if values.ndim != 2 or values.shape[1] != entry.channels or not len(values):
        raise ValueError(f"'{path.name}' has shape {values.shape}, {name} needs (samples, {entry.channels})")
    # Values beyond float32's range become infinite and are rejected as such.
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"'{path.name}' holds values that are not finite")
    return values, rate


def _read_table(path: Path, columns: int, most: float) -> NDArray[np.float64]:
    """Reads a CSV of numbers (N, columns), with one header line allowed, row by row: text takes much more memory.

    Stops after more than `most` rows.
    """
    found = array("d")
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(row for row in csv.reader(file) if row):
            try:
                values = [float(value) for value in row]
            except ValueError:
                if number == 0:
                    continue
                raise
            if len(row) != columns:
                raise ValueError(f"'{path.name}' has a row of {len(row)} values, {columns} are needed")
            found.extend(values)
            if number > most + 1:
                break
    return np.frombuffer(found, np.float64).reshape(-1, columns)


def picture_files(files: dict[str, Path], names: tuple[str, ...]) -> list[tuple[str, str, Path]]:
    """Returns (modality, content, file) of the pictures that `names` need and the recording has, RGB first."""
    needed = dict.fromkeys(modality(name).flow_of or name for name in names if modality(name).kind == "video")
    known = [(source, "video" if source == "rgb" else source) for source in MODALITIES if source in needed]
    return [(source, content, files[content]) for source, content in known if content in files]


def reader_of(source: str, settings: PackSettings) -> FrameReader:
    """Returns the reader of the pictures of a modality. Only levels of depth are scaled, to millimetres."""
    if modality(source).channels == 3:
        return FrameReader("rgb24", settings.size, region=settings.region)
    return FrameReader("gray16le", settings.size, settings.depth_scale if source == "depth" else 1.0, settings.region)


def by_content(files: dict[str, Path]) -> dict[str, Path]:
    """Returns the files, with a `video` that has only sound moved to `audio`."""
    video = files.get("video")
    if video is None or not _is_container(video) or probe(video).has_video:
        return files
    return {"audio": video} | {name: path for name, path in files.items() if name != "video"}


def has_sound(video: Path) -> bool:
    """Returns whether a video has a sound track. A folder of frames and an array have none."""
    return _is_container(video) and probe(video).has_sound


def _is_container(path: Path) -> bool:
    return not path.is_dir() and path.suffix.lower() not in ARRAY_SUFFIXES


def _within(gaps: list[Span], start: float, duration: float) -> Iterator[Span]:
    """Yields the parts of gaps that lie in a piece, in seconds of the piece."""
    for begin, end in gaps:
        begin, end = max(begin - start, 0.0), min(end - start, duration)
        if begin < end:
            yield round(begin, 3), round(end, 3)


def _sound(
    files: dict[str, Path], name: str, settings: PackSettings, damage: Damage | None, gaps: list[Span]
) -> SoundPieces | None:
    """Returns mono sound from the video's first frame on, or None if there is no track.

    Only `audio` may come from the video. Adds the gaps of the track to `gaps` as they are read, at their time stamps.
    """
    path, own = files.get(name), name in files
    if path is None and name == "audio" and "video" in files and has_sound(files["video"]):
        path = files["video"]
    if path is None:
        return None

    def note(start: float, end: float) -> None:
        gaps.append((start, end))

    sound = iterate_sound(path, settings.sample_rate, settings.max_seconds, damage, note)
    origin = None
    if not own:
        # Damage before the first picture is counted where the pictures are read.
        uncounted = None if damage is None else Damage()
        origin = next((time for time, _ in iterate_frames(path, uncounted)), 0.0)
    return SoundPieces(sound, settings.sample_rate, origin)


def _since(gaps: list[Span], origin: float) -> list[Span]:
    return [(start - origin, end - origin) for start, end in gaps]


def _cut(values: NDArray[Any], start: float, duration: float, rate: float, hold: bool = False) -> NDArray[Any]:
    """Returns `duration` seconds from `start`, which may be negative. Zeros fill times outside the values.

    `hold`: past their end, values keep the last one.
    """
    count, first = max(round(duration * rate), 0), round(start * rate)
    out = np.zeros((count, *values.shape[1:]), values.dtype)
    begin = max(-first, 0)
    piece = values[max(first, 0) : max(first + count, 0)]
    out[begin : begin + len(piece)] = piece[: count - begin]
    if hold and len(piece):
        out[begin + len(piece) :] = piece[-1]
    return out


def _flow(
    name: str, frames: NDArray[Any], count: int, stored: dict[str, NDArray[Any]], first: int
) -> NDArray[np.float32]:
    """Returns the flow of the first `count` frames of (T, H, W, ...): stored flow from frame `first` on, or computed.

    Computed flow needs one frame more.
    """
    if name not in stored:
        return compute_flow(frames)[:count]
    flow = np.array(stored[name][first : first + count], np.float32)
    shape, packed = flow[:, 0].shape, frames[:count].shape[:3]
    if shape != packed:
        raise ValueError(
            f"its {name} (frames, height, width) is {shape} from frame {first}, its packed {_source(name)} {packed}"
        )
    return flow


def _source(flow: str) -> str:
    return "video" if modality(flow).flow_of == "rgb" else modality(flow).flow_of


def _stored_flow(path: Path) -> NDArray[Any]:
    """Opens measured flow, NPY (T, 2, H, W) in pixel/frame. It stays on the disk."""
    flow = open_array(path, 4)
    if flow.shape[1] != 2:
        raise ValueError(f"'{path.name}' has shape {flow.shape}, flow needs (frames, 2, height, width)")
    return flow
