"""A person's recording as arrays: constant frame rate, one size, one clock for every stream."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .flow import compute_flow
from .index import PackSettings
from .media import FrameReader, MediaFacts, iterate_frames, probe, read_sound
from .modality import MODALITIES, modality


@dataclass
class Recording:
    """A piece of a recording, all streams beginning at its time 0.

    `streams`: rgb (T, H, W, 3) uint8; flow (T, 2, H, W) float32 pixel/frame; depth (T, H, W) uint16; audio (N,)
    float32; signals (N, C) float32. `rates`: of the signals, in Hz. `start`, `duration` in seconds. `silent`: the
    level of its sound track stays below the threshold, so it is no stream.
    """

    start: float
    duration: float
    streams: dict[str, NDArray[Any]]
    rates: dict[str, float]
    silent: bool = False


def read_recording(files: dict[str, Path], settings: PackSettings) -> Iterator[Recording]:
    """The pieces of at most `settings.clip_seconds` of one recording, with the modalities asked for and there.

    Video is decoded piece by piece. Raises `ValueError` where nothing asked for is there or a video has fewer than
    two frames, and `av.FFmpegError` or `OSError` where a file cannot be read.
    """
    wanted = settings.modalities
    video = files.get("video")
    sound, signals, rates = None, {}, {}
    for name in wanted:
        if modality(name).kind == "signal" and name in files:
            signals[name], rates[name] = read_signal(files[name], name)
    if "audio" in wanted:
        sound = _sound(files, settings)
    flow = _stored_flow(files["flow"]) if "flow" in wanted and "flow" in files else None
    pictures = None
    if video is not None and ("rgb" in wanted or ("flow" in wanted and flow is None)):
        pictures = _pieces(video, FrameReader("rgb24", settings.size), settings)
    depth = None
    if "depth" in wanted and "depth" in files:
        depth = _pieces(files["depth"], FrameReader("gray16le", settings.size), settings)
    longest = max(
        [len(sound) / settings.sample_rate if sound is not None else 0.0]
        + [len(values) / rates[name] for name, values in signals.items()]
    )
    if pictures is None and depth is None and not longest:
        raise ValueError(f"it has none of {', '.join(wanted)}")
    per_piece = max(round(settings.clip_seconds * settings.fps), 2)
    number, total = 0, 0
    while True:
        streams: dict[str, NDArray[Any]] = {}
        frames = next(pictures, None) if pictures is not None else None
        depths = next(depth, None) if depth is not None else None
        first, start = number * per_piece, number * per_piece / settings.fps
        leading = frames if frames is not None else depths
        if leading is None and (pictures is not None or depth is not None or start >= longest):
            # One frame left over at the end is no piece.
            if flow is not None and pictures is not None and abs(len(flow) - total) > 1:
                raise ValueError(f"its flow has {len(flow)} frames, its packed video {total}")
            return
        duration = len(leading) / settings.fps if leading is not None else min(settings.clip_seconds, longest - start)
        if frames is not None:
            total += len(frames)
            if "rgb" in wanted:
                streams["rgb"] = frames
            if "flow" in wanted:
                streams["flow"] = compute_flow(frames) if flow is None else flow[first : first + len(frames)]
                given, packed = streams["flow"][:, 0].shape, frames.shape[:3]
                if given != packed:
                    raise ValueError(
                        f"its flow (frames, height, width) is {given} from frame {first}, its packed video {packed}"
                    )
        if depths is not None:
            streams["depth"] = depths[: len(leading)] if leading is not None else depths
        silent = False
        if sound is not None:
            piece = _cut(sound, start, duration, settings.sample_rate)
            silent = bool(loudness(piece) < settings.silence_db)
            if not silent:
                streams["audio"] = piece
        for name, values in signals.items():
            streams[name] = _cut(values, start, duration, rates[name])
        yield Recording(start, duration, streams, rates, silent)
        number += 1


def loudness(sound: NDArray[np.float32]) -> float:
    """RMS level in dB below full scale; minus infinity for digital silence."""
    power = float(np.mean(np.square(sound, dtype=np.float64))) if len(sound) else 0.0
    return 10 * np.log10(power) if power > 0 else -np.inf


def read_signal(path: Path, name: str) -> tuple[NDArray[np.float32], float]:
    """A CSV (one header line allowed) or NPY signal (N, C) and its rate in Hz, the table's default.

    Raises `ValueError` where it is no table of numbers with the modality's channels.
    """
    entry = MODALITIES[name]
    if path.suffix.lower() == ".npy":
        values = np.load(path, allow_pickle=False)
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        try:
            values = np.array(rows, dtype=np.float32)
        except ValueError:
            values = np.array(rows[1:], dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != entry.channels or not len(values):
        raise ValueError(f"'{path.name}' has shape {values.shape}, {name} needs (samples, {entry.channels})")
    if not np.isfinite(values).all():
        raise ValueError(f"'{path.name}' holds values that are not finite")
    return values.astype(np.float32), entry.rate or 1.0


def _pieces(path: Path, reader: FrameReader, settings: PackSettings) -> Iterator[NDArray[Any]]:
    """Pictures at the constant rate, nearest in time, in stacks of at most `clip_seconds`."""
    facts = probe(path)
    if not facts.has_video:
        raise ValueError(f"'{path.name}' has no video stream")
    per_piece = max(round(settings.clip_seconds * settings.fps), 2)
    stack: list[NDArray[Any]] = []
    count = 0
    for picture in _at_constant_rate(path, reader, settings.fps, facts):
        count += 1
        stack.append(picture)
        if len(stack) == per_piece:
            yield np.stack(stack)
            stack = []
    if count < 2:
        raise ValueError(f"'{path.name}' has {count} frame at {settings.fps:g} per second, at least 2 are needed")
    if len(stack) >= 2:
        yield np.stack(stack)


def _at_constant_rate(path: Path, reader: FrameReader, fps: float, facts: MediaFacts) -> Iterator[NDArray[Any]]:
    """The frame nearest to each grid time 0, 1/fps, ..., counted from the first frame; each is converted once.

    Raises `ValueError` at the end where a tenth or more of what the header promises is missing: a file cut short
    decodes without an error in most containers.
    """
    origin: float | None = None
    held: Any = None
    held_time, number = 0.0, 0
    for time, frame in iterate_frames(path):
        origin = time if origin is None else origin
        time -= origin
        if held is not None:
            picture = None
            while number / fps <= (held_time + time) / 2:
                picture = reader.read(held) if picture is None else picture
                yield picture
                number += 1
        held, held_time = frame, time
    if held is not None:
        end = held_time + 1 / (facts.fps or fps)
        if end < 0.9 * facts.video_seconds:
            raise ValueError(f"'{path.name}' is cut short: {end:.1f} of {facts.video_seconds:.1f} s are there")
        picture = reader.read(held)
        # Matroska counts in milliseconds: a rounded end must not earn a frame that was never there.
        while number / fps < end - 0.1 / fps:
            yield picture
            number += 1


def _sound(files: dict[str, Path], settings: PackSettings) -> NDArray[np.float32] | None:
    """Mono sound whose sample 0 is the video's first frame, or None where there is no track."""
    if "audio" in files:
        _, sound = read_sound(files["audio"], settings.sample_rate)
        return sound
    if "video" not in files or not probe(files["video"]).has_sound:
        return None
    begin, sound = read_sound(files["video"], settings.sample_rate)
    first = next((time for time, _ in iterate_frames(files["video"])), 0.0)
    return _cut(sound, first - begin, len(sound) / settings.sample_rate + begin - first, settings.sample_rate)


def _cut(values: NDArray[Any], start: float, duration: float, rate: float) -> NDArray[Any]:
    """`duration` seconds from `start` (which may be negative), zeros where the values do not reach."""
    count, first = max(round(duration * rate), 0), round(start * rate)
    out = np.zeros((count, *values.shape[1:]), values.dtype)
    begin = max(-first, 0)
    piece = values[max(first, 0) : max(first + count, 0)]
    out[begin : begin + len(piece)] = piece[: count - begin]
    return out


def _stored_flow(path: Path) -> NDArray[np.float32]:
    """A sensor's own flow, NPY (T, 2, H, W) in pixel/frame."""
    flow = np.load(path, allow_pickle=False)
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise ValueError(f"'{path.name}' has shape {flow.shape}, flow needs (frames, 2, height, width)")
    return flow.astype(np.float32)
