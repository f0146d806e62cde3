"""Tracks of a recording that is read once, in order: only the frames and samples of one piece are kept.

Every track has the same methods. All times are in seconds.

- `reach(time)` reads up to `time`. Returns whether the track is that long.
- `cut(start, covered, piece)` returns the window at `start` that takes `covered` seconds, played in the spec's
  `seconds`. `piece` is start and end of the piece, beyond which nothing is used.
- `forget(time)` releases what lies before `time`.
"""

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clip_spec import ClipSpec
from ..clips.decode import fit_square, place_square
from ..clips.windows import frame_times
from ..media.flow import compute_flow, quantise_flow
from ..modality import Modality, modality
from ..packing.recording import read_signal


class Pictures:
    """A video track: RGB or depth, and its optical flow.

    - `source`: pictures (H, W, ...) at `spec.fps`.
    - `names`: the modality of the pictures, that of their flow, or both.
    """

    def __init__(self, source: Iterator[NDArray[Any]], names: tuple[str, ...], spec: ClipSpec) -> None:
        self.source, self.names, self.spec = source, names, spec
        self.pictures: dict[int, NDArray[Any]] = {}
        self.squares: dict[tuple[str, int], NDArray[Any]] = {}
        self.total, self.needed, self.ended = 0, 0, False
        # Flow needs the next frame.
        self.ahead = int(any(modality(name).flow_of for name in names))

    @property
    def seconds(self) -> float:
        """Seconds that were read."""
        return self.total / self.spec.fps

    def reach(self, time: float) -> bool:
        """Decodes up to `time`, and one more frame for flow. Returns whether the video is that long."""
        wanted = time * self.spec.fps - 1e-6
        while not self.ended and self.total < wanted + self.ahead:
            picture = next(self.source, None)
            if picture is None:
                self.ended = True
            else:
                self.pictures[self.total] = picture
                self.total += 1
                # Released between distant windows. The last two stay, for flow and for a track that ends early.
                if self.total - 3 < self.needed:
                    self.pictures.pop(self.total - 3, None)
        return self.total >= wanted

    def cut(self, start: float, covered: float, piece: tuple[float, float]) -> dict[str, NDArray[Any]]:
        """Returns the window's frames (T, C, size, size) by modality."""
        if not self.total:
            return {}
        times = frame_times(np.array([start]), covered, self.spec.frames)[0]
        last = min(max(math.ceil(piece[1] * self.spec.fps - 1e-6), 1), self.total) - 1
        numbers = np.clip(np.floor(times * self.spec.fps + 1e-6).astype(int), 0, last)
        numbers = np.maximum(numbers, min(self.pictures)).tolist()
        return {name: np.stack([self._square(name, number) for number in numbers]) for name in self.names}

    def forget(self, time: float) -> None:
        """Releases the pictures before `time`."""
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
        if not modality(name).flow_of:
            return picture.transpose(2, 0, 1) if picture.ndim == 3 else picture[None]
        after, before = self.pictures.get(number + 1), self.pictures.get(number - 1)
        # The last frame has no next one: its flow is the motion that led to it, as in packing.
        near = (picture, after) if after is not None else (before, picture)
        flow = compute_flow(np.stack([one for one in near if one is not None]))
        return quantise_flow(flow[0 if after is not None else -1], self.spec.flow_bound)


class Sound:
    """A sound track.

    - `source`: (time of the track's first sample, samples (n,) at `spec.sample_rate`). An empty piece means that no
      more has arrived yet.
    - `origin`: time of the video's first frame, which becomes time 0. None without video.
    - `silence_db`, `memory`: sound is absent while its level over the last `memory` seconds of a piece is below
      `silence_db`.
    - `name`: its modality.
    """

    def __init__(
        self,
        source: Iterator[tuple[float, NDArray[np.float32]]],
        origin: float | None,
        spec: ClipSpec,
        silence_db: float,
        memory: float,
        name: str = "audio",
    ) -> None:
        self.source, self.origin, self.names = source, origin, (name,)
        self.spec, self.threshold = spec, silence_db
        self.parts: deque[NDArray[np.float32]] = deque()
        self.first, self.reached, self.needed = 0, 0, 0
        self.levels: deque[tuple[int, int, float]] = deque()
        self.remembered = round(memory * spec.sample_rate)
        self.begun, self.ended = False, False

    @property
    def seconds(self) -> float:
        """Seconds that were read."""
        return self.reached / self.spec.sample_rate

    def reach(self, time: float) -> bool:
        """Reads up to `time`. Returns whether the sound has arrived up to there."""
        wanted = round(time * self.spec.sample_rate)
        while not self.ended and self.reached < wanted:
            begin, piece = next(self.source, (0.0, None))
            if piece is None:
                self.ended = True
                break
            if not len(piece):
                break
            if not self.begun and self.origin is not None:
                # Sound may begin before or after the first picture.
                self.first = self.reached = round((begin - self.origin) * self.spec.sample_rate)
            self.begun = True
            self.parts.append(piece)
            self.reached += len(piece)
            self.levels.append((self.reached, len(piece), float(np.square(piece, dtype=np.float64).sum())))
            self._drop()
        return self.reached >= wanted

    def cut(self, start: float, covered: float, piece: tuple[float, float]) -> dict[str, NDArray[np.float32]]:
        """Returns the window's samples (N,), or nothing if the sound is absent."""
        # A stretched model takes no sound, because stretching would change its pitch.
        del covered
        rate = self.spec.sample_rate
        window = np.zeros(round(self.spec.seconds * rate), np.float32)
        first, begun, over = round(start * rate), round(piece[0] * rate), round(piece[1] * rate)
        while len(self.levels) > 1 and self.levels[0][0] < over - self.remembered:
            self.levels.popleft()
        heard = sum(length for _, length, _ in self.levels)
        power = sum(level for _, _, level in self.levels) / max(heard, 1)
        if begun >= self.reached or over <= self.first or power < 10 ** (self.threshold / 10) or not power:
            return {}
        last = min(first + len(window), over)
        # A window that extends past the sound or the piece is filled with silence.
        place = self.first
        for part in self.parts:
            begin, end = max(place, first), min(place + len(part), last)
            if begin < end:
                window[begin - first : end - first] = part[begin - place : end - place]
            place += len(part)
        return {self.names[0]: window}

    def forget(self, time: float) -> None:
        """Releases the samples before `time`."""
        self.needed = round(time * self.spec.sample_rate)
        self._drop()

    def _drop(self) -> None:
        while self.parts and self.first + len(self.parts[0]) <= self.needed:
            self.first += len(self.parts.popleft())


class Signal:
    """A signal, read whole because it is small, and resampled to the rate of its modality."""

    def __init__(
        self, path: Path, name: str, spec: ClipSpec, rate: float | None = None, max_seconds: float = math.inf
    ) -> None:
        values, rate = read_signal(path, name, rate, max_seconds)
        self.rate = modality(name).rate or rate
        count = round(len(values) / rate * self.rate)
        times, places = np.arange(count) / self.rate, np.arange(len(values)) / rate
        channels = [np.interp(times, places, channel) for channel in values.T]
        self.values = values if rate == self.rate else np.stack(channels, axis=-1).astype(np.float32)
        self.name, self.spec = name, spec
        self.seconds = len(self.values) / self.rate

    def reach(self, time: float) -> bool:
        """Returns whether the signal is that long."""
        return time <= self.seconds + 1e-6

    def cut(self, start: float, covered: float, piece: tuple[float, float]) -> dict[str, NDArray[np.float32]]:
        """Returns the window's samples (N, C), or nothing if the signal ends before the piece.

        Past the end of the signal or the piece, the last value holds, as in windows of shards.
        """
        count = round(self.spec.seconds * self.rate)
        # Interpolated between samples, as windows of shards are cut.
        places = start * self.rate + np.arange(count) * (covered / self.spec.seconds)
        end = piece[1] * self.rate - 1e-6
        places = np.where(places < end, places, max(math.ceil(end) - 1, 0))
        columns = [np.interp(places, np.arange(len(self.values)), channel) for channel in self.values.T]
        window = np.stack(columns, axis=-1).astype(np.float32)
        return {self.name: window} if piece[0] * self.rate < len(self.values) else {}

    def forget(self, time: float) -> None:
        """Does nothing: the signal stays in memory."""


Track = Pictures | Sound | Signal


def _fit(values: NDArray[Any], entry: Modality, size: int) -> NDArray[Any]:
    """Returns the central square (C, size, size) of (C, H, W)."""
    side, top, left = place_square(values.shape[1], values.shape[2], (0.5, 0.5), entry)
    square = np.empty((len(values), size, size), values.dtype)
    fit_square(values[:, top : top + side, left : left + side], square)
    return square
