"""Windows that slide over one recording of any length: every frame decoded once, and only a window's worth kept."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .batch import Batch, Clip, stack
from .decode import fit_square, place_square
from .flow import compute_flow, quantise_flow
from .index import PackSettings
from .media import FrameReader, iterate_frames, iterate_sound, probe
from .modality import Modality, modality
from .pictures import iterate_pictures
from .recording import read_signal
from .transforms import ClipSpec
from .windows import frame_times


@dataclass(frozen=True)
class Window:
    """`start`, `end` in seconds from the first frame; `streams` as shards store one window: video (T, C, H, W), audio
    (N,), signals (N, C). What the recording lacks there is no stream."""

    start: float
    end: float
    streams: dict[str, NDArray[Any]]


def slide(
    files: dict[str, Path], spec: ClipSpec, modalities: tuple[str, ...], hop: float | None = None
) -> Iterator[Window]:
    """Windows of `spec.seconds` every `hop` seconds (half a window by default), the last one whole.

    `files`: `video` (with its sound) and other modalities' files by name. A recording shorter than one window gives
    one, whose last picture stands still and whose sound ends in silence. Sound counts as absent while it has stayed
    below the packing's threshold for the last half minute. Raises `ValueError` where there is nothing of
    `modalities`, or hop is not above 0, and what reading raises, after the windows that came before the fault.
    """
    hop = spec.seconds / 2 if hop is None else hop
    if not hop > 0:
        raise ValueError(f"a hop of {hop:g} s does not move: give seconds above 0")
    settings = PackSettings(
        modalities, spec.short_side, spec.fps, spec.flow_bound, spec.sample_rate, max_seconds=math.inf
    )
    tracks = _open(files, settings, spec)
    if not tracks:
        raise ValueError(f"it has none of {', '.join(modalities)}")
    # Pictures set the end where there are any: sound often runs on after them.
    leader = tracks[0]
    for number in count():
        start = number * hop
        whole = leader.reach(start + spec.seconds)
        if not whole and number:
            return
        if not whole and leader.seconds <= 0:
            raise ValueError("it holds nothing that can be decoded")
        streams: dict[str, NDArray[Any]] = {}
        for track in tracks:
            if track is not leader:
                track.reach(start + spec.seconds)
            streams |= track.cut(start)
        order = [name for name in modalities if name in streams]
        end = start + spec.seconds if whole else leader.seconds
        yield Window(start, end, {name: streams[name] for name in order})
        for track in tracks:
            track.forget(start + hop)


def batch_windows(windows: list[Window], modalities: tuple[str, ...]) -> Batch:
    """Windows as clips of one segment."""
    clips = []
    for window in windows:
        streams = {name: torch.from_numpy(values[None]) for name, values in window.streams.items()}
        present = {name: name in streams for name in modalities}
        clips.append(Clip(streams, present, "", torch.tensor([window.start]).float(), None))
    return stack(clips, seed=0)


class _Pictures:
    """A video track: RGB, with flow between its frames, or depth."""

    def __init__(self, path: Path, names: tuple[str, ...], settings: PackSettings, spec: ClipSpec) -> None:
        depth = names == ("depth",)
        reader = FrameReader("gray16le" if depth else "rgb24", settings.size, settings.depth_scale if depth else 1.0)
        self.source = iterate_pictures(path, reader, settings)
        self.names, self.spec = names, spec
        self.pictures: dict[int, NDArray[Any]] = {}
        self.squares: dict[tuple[str, int], NDArray[Any]] = {}
        self.total, self.needed, self.ended = 0, 0, False

    @property
    def seconds(self) -> float:
        return self.total / self.spec.fps

    def reach(self, time: float) -> bool:
        """Decodes up to `time`, and one frame more for the flow that leads there; whether there is as much."""
        wanted = time * self.spec.fps - 1e-6
        ahead = 1 if "flow" in self.names else 0
        while not self.ended and self.total < wanted + ahead:
            picture = next(self.source, None)
            if picture is None:
                self.ended = True
            else:
                self.pictures[self.total] = picture
                self.total += 1
                # Between windows that lie apart; the last two stay, for flow and for a track that ends early.
                if self.total - 3 < self.needed:
                    self.pictures.pop(self.total - 3, None)
        return self.total >= wanted

    def cut(self, start: float) -> dict[str, NDArray[Any]]:
        if not self.total:
            return {}
        times = frame_times(np.array([start]), self.spec.seconds, self.spec.frames)[0]
        numbers = np.clip(np.floor(times * self.spec.fps + 1e-6).astype(int), 0, self.total - 1)
        numbers = np.maximum(numbers, min(self.pictures)).tolist()
        return {name: np.stack([self._square(name, number) for number in numbers]) for name in self.names}

    def forget(self, time: float) -> None:
        self.needed = math.floor(time * self.spec.fps + 1e-6)
        first = min(self.needed, self.total - 2)
        self.pictures = {number: picture for number, picture in self.pictures.items() if number >= first}
        self.squares = {key: square for key, square in self.squares.items() if key[1] >= first}

    def _square(self, name: str, number: int) -> NDArray[Any]:
        found = self.squares.get((name, number))
        if found is None:
            found = self.squares[name, number] = _fit(self._values(name, number), modality(name), self.spec.size)
        return found

    def _values(self, name: str, number: int) -> NDArray[Any]:
        picture = self.pictures[number]
        if name == "rgb":
            return picture.transpose(2, 0, 1)
        if name == "depth":
            return picture[None]
        # The last frame leads nowhere: its flow repeats the one before, as in packing.
        first = number if number + 1 in self.pictures else number - 1
        if first not in self.pictures:
            return np.full((2, *picture.shape[:2]), 128, np.uint8)
        pair = np.stack([self.pictures[first], self.pictures[first + 1]])
        return quantise_flow(compute_flow(pair)[0], self.spec.flow_bound)


class _Sound:
    """The sound track, its sample 0 at the first frame of the video."""

    names = ("audio",)

    def __init__(self, path: Path, video: Path | None, settings: PackSettings, spec: ClipSpec) -> None:
        self.source = iterate_sound(path, spec.sample_rate)
        self.origin = next((time for time, _ in iterate_frames(video)), 0.0) if video is not None else None
        self.spec, self.threshold = spec, settings.silence_db
        self.parts: deque[NDArray[np.float32]] = deque()
        self.first, self.reached, self.needed = 0, 0, 0
        self.levels: deque[tuple[int, int, float]] = deque()
        self.remembered = round(settings.clip_seconds * spec.sample_rate)
        self.begun, self.ended = False, False

    @property
    def seconds(self) -> float:
        return self.reached / self.spec.sample_rate

    def reach(self, time: float) -> bool:
        wanted = round(time * self.spec.sample_rate)
        while not self.ended and self.reached < wanted:
            begin, piece = next(self.source, (0.0, None))
            if piece is None:
                self.ended = True
                break
            if not self.begun and self.origin is not None:
                # Sound may begin after the first picture, or before it.
                self.first = self.reached = round((begin - self.origin) * self.spec.sample_rate)
            self.begun = True
            self.parts.append(piece)
            self.reached += len(piece)
            self.levels.append((self.reached, len(piece), float(np.square(piece, dtype=np.float64).sum())))
            self._drop()
        return self.reached >= wanted

    def cut(self, start: float) -> dict[str, NDArray[np.float32]]:
        window = np.zeros(round(self.spec.seconds * self.spec.sample_rate), np.float32)
        first = round(start * self.spec.sample_rate)
        last = first + len(window)
        while len(self.levels) > 1 and self.levels[0][0] < last - self.remembered:
            self.levels.popleft()
        heard = sum(length for _, length, _ in self.levels)
        power = sum(level for _, _, level in self.levels) / max(heard, 1)
        if first >= self.reached or last <= self.first or power < 10 ** (self.threshold / 10) or not power:
            return {}
        # A window that reaches past either end of the sound is filled with silence.
        place = self.first
        for part in self.parts:
            begin, end = max(place, first), min(place + len(part), last)
            if begin < end:
                window[begin - first : end - first] = part[begin - place : end - place]
            place += len(part)
        return {"audio": window}

    def forget(self, time: float) -> None:
        self.needed = round(time * self.spec.sample_rate)
        self._drop()

    def _drop(self) -> None:
        while self.parts and self.first + len(self.parts[0]) <= self.needed:
            self.first += len(self.parts.popleft())


class _Signal:
    """A signal, which is small: read whole."""

    def __init__(self, path: Path, name: str, spec: ClipSpec) -> None:
        self.values, self.rate = read_signal(path, name)
        self.name, self.spec = name, spec
        self.seconds = len(self.values) / self.rate

    def reach(self, time: float) -> bool:
        return time <= self.seconds + 1e-6

    def cut(self, start: float) -> dict[str, NDArray[np.float32]]:
        window = np.zeros((round(self.spec.seconds * self.rate), self.values.shape[1]), np.float32)
        piece = self.values[round(start * self.rate) :][: len(window)]
        window[: len(piece)] = piece
        return {self.name: window} if len(piece) else {}

    def forget(self, time: float) -> None:
        """Nothing: it stays."""


def _open(files: dict[str, Path], settings: PackSettings, spec: ClipSpec) -> list[_Pictures | _Sound | _Signal]:
    """The tracks there are, pictures first."""
    wanted, video = settings.modalities, files.get("video")
    facts = probe(video) if video is not None and not video.is_dir() else None
    tracks: list[_Pictures | _Sound | _Signal] = []
    colours = tuple(name for name in ("rgb", "flow") if name in wanted)
    if video is not None and colours and (facts is None or facts.has_video):
        tracks.append(_Pictures(video, colours, settings, spec))
    if "depth" in wanted and "depth" in files:
        tracks.append(_Pictures(files["depth"], ("depth",), settings, spec))
    if "audio" in wanted:
        if "audio" in files:
            tracks.append(_Sound(files["audio"], None, settings, spec))
        elif video is not None and facts is not None and facts.has_sound:
            tracks.append(_Sound(video, video if facts.has_video else None, settings, spec))
    tracks += [
        _Signal(files[name], name, spec) for name in wanted if modality(name).kind == "signal" and name in files
    ]
    return tracks


def _fit(values: NDArray[Any], entry: Modality, size: int) -> NDArray[Any]:
    """The central square (C, size, size) of (C, H, W)."""
    side, top, left = place_square(values.shape[1], values.shape[2], (0.5, 0.5), entry)
    square = np.empty((len(values), size, size), values.dtype)
    fit_square(values[:, top : top + side, left : left + side], square)
    return square
