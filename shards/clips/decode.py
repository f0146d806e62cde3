"""Decode a few windows from the bytes of a shard member, and no more frames than they need."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..index.members import stored_signal, stored_sound
from ..media.container_io import open_media
from ..modality import Modality

# By suffix. With a given format, FFmpeg opens a member in two thirds of the time.
CONTAINERS = {"mp4": "mp4", "mkv": "matroska"}


def decode_frames(
    data: bytes, times: NDArray[np.float64], fps: float, entry: Modality, size: int, crop: tuple[float, float]
) -> NDArray[Any]:
    """Returns the frames nearest to `times`: (*S, C, size, size), uint8, or uint16 for depth.

    - `data`: the bytes of a packed video, which has constant rate `fps`.
    - `times`: seconds, of any shape S. Times past the end get the last frame.
    - `crop`: position of the square along the longer side, (vertical, horizontal) in [0, 1].

    Of each run from one key frame to the next, only the frames up to the last requested one are decoded, and only
    requested frames are converted, straight into the result. RGB results have channels last in memory. Raises
    `ValueError` if no frame can be decoded.
    """
    wanted = np.maximum(np.floor(times.reshape(-1) * fps + 1e-6).astype(int), 0)
    window: _Window | None = None
    with open_media(io.BytesIO(data), CONTAINERS.get(entry.suffix.rpartition(".")[2])) as container:
        stream = container.streams.video[0]
        # Matroska does not count its frames.
        count = stream.frames or round((container.duration or 0) / 1e6 * fps)
        if count:
            wanted = np.minimum(wanted, count - 1)
        places: dict[int, int] = {}
        for number in wanted.tolist():
            places.setdefault(number, len(places))
        missing = set(places)
        ticks = fps * float(stream.time_base)
        origin = stream.start_time or 0

        def keep(frames: list[Any]) -> None:
            nonlocal window
            for frame in frames:
                number = round((frame.pts - origin) * ticks)
                if number in missing:
                    if window is None:
                        window = _Window(frame, entry, len(places), size, crop)
                    window.put(frame, places[number])
                    missing.discard(number)

        for run in _key_frame_runs(container.demux(stream)):
            numbers = [round((packet.pts - origin) * ticks) for packet in run]
            asked = [place for place, number in enumerate(numbers) if number in missing]
            for packet in run[: asked[-1] + 1] if asked else ():
                keep(packet.decode())
            if not missing:
                break
        if missing:
            keep(stream.decode(None))
    if window is None:
        raise ValueError("no frame could be decoded")
    if missing or len(places) < len(wanted):
        numbers = np.array(sorted(places.keys() - missing))
        nearest = np.clip(np.searchsorted(numbers, wanted), 0, len(numbers) - 1)
        chosen = window.pictures[[places[number] for number in numbers[nearest].tolist()]]
    else:
        chosen = window.pictures
    if entry.channels == 3:
        chosen = chosen.transpose(0, 3, 1, 2)
    return chosen.reshape(*times.shape, *chosen.shape[1:])


class _Window:
    """The pictures of one window, and the buffers through which each frame passes."""

    def __init__(self, frame: Any, entry: Modality, count: int, size: int, crop: tuple[float, float]) -> None:
        self.entry, self.size = entry, size
        self.gray16 = frame.format.name.startswith("gray16")
        height, width = frame.height, frame.width
        if entry.channels != 3:
            height //= entry.channels
        self.side, self.top, self.left = place_square(height, width, crop, entry)
        if entry.channels == 3:
            self.planar = np.empty((self.side * 3 // 2, self.side), np.uint8)
            self.pictures = np.empty((count, size, size, 3), np.uint8)
        else:
            self.pictures = np.empty((count, entry.channels, size, size), np.uint16 if self.gray16 else np.uint8)

    def put(self, frame: Any, place: int) -> None:
        if self.entry.channels == 3:
            self._put_colour(frame, self.pictures[place])
        else:
            gray = _plane(frame.planes[0], frame.height, frame.width, np.uint16 if self.gray16 else np.uint8)
            channels = gray.reshape(self.entry.channels, -1, gray.shape[1]) if self.entry.channels > 1 else gray[None]
            top, left, side = self.top, self.left, self.side
            fit_square(channels[:, top : top + side, left : left + side], self.pictures[place])

    def _put_colour(self, frame: Any, picture: NDArray[np.uint8]) -> None:
        """Converts only the square with OpenCV, at a third of the cost of a swscale pass over the frame."""
        side, half = self.side, self.side // 2
        luminance, blue, red = frame.planes
        top, left = self.top, self.left
        self.planar[:side] = _plane(luminance, frame.height, frame.width)[top : top + side, left : left + side]
        for number, plane in enumerate((blue, red)):
            chroma = _plane(plane, frame.height // 2, frame.width // 2)
            target = self.planar.reshape(-1)[side * side + number * half * half :][: half * half]
            target.reshape(half, half)[:] = chroma[top // 2 : top // 2 + half, left // 2 : left // 2 + half]
        if side == self.size:
            cv2.cvtColor(self.planar, cv2.COLOR_YUV2RGB_I420, dst=picture)
        else:
            colours = cv2.cvtColor(self.planar, cv2.COLOR_YUV2RGB_I420)
            how = cv2.INTER_NEAREST if side < self.size else cv2.INTER_AREA
            cv2.resize(colours, (self.size, self.size), dst=picture, interpolation=how)


def _plane(plane: Any, height: int, width: int, kind: type = np.uint8) -> NDArray[Any]:
    values = np.frombuffer(plane, kind)
    return values.reshape(-1, plane.line_size // values.itemsize)[:height, :width]


def _key_frame_runs(packets: Iterable[Any]) -> Iterator[list[Any]]:
    """Yields the packets from each key frame up to the next. Each run can be decoded on its own."""
    run: list[Any] = []
    for packet in packets:
        if packet.pts is None:  # the demuxer's end mark
            continue
        if packet.is_keyframe and run:
            yield run
            run = []
        run.append(packet)
    if run:
        yield run


def place_square(height: int, width: int, crop: tuple[float, float], entry: Modality) -> tuple[int, int, int]:
    """Returns side, top and left of the largest square, even for RGB, whose chroma planes are half as large."""
    side = min(height, width)
    top, left = round(crop[0] * (height - side)), round(crop[1] * (width - side))
    return (side // 2 * 2, top // 2 * 2, left // 2 * 2) if entry.channels == 3 else (side, top, left)


def fit_square(square: NDArray[Any], target: NDArray[Any]) -> None:
    """Writes a square (C, H, H) into (C, size, size), scaled if needed. Depth is never averaged."""
    if square.shape == target.shape:
        target[:] = square
        return
    size = target.shape[-1]
    nearest = square.dtype == np.uint16 or square.shape[-1] < size
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
    for channel, picture in zip(square, target, strict=True):
        picture[:] = cv2.resize(np.ascontiguousarray(channel), (size, size), interpolation=how)


def decode_sound(data: bytes, starts: NDArray[np.float64], seconds: float, sample_rate: int) -> NDArray[np.float32]:
    """Returns windows (K, N) of a PCM wave member in [-1, 1], silent past its end.

    Raises `ValueError` unless it is mono, 16 bits, at `sample_rate`.
    """
    sound = stored_sound(data, sample_rate)
    windows = np.zeros((len(starts), round(seconds * sample_rate)), np.float32)
    for row, start in zip(windows, starts, strict=True):
        first = round(float(start) * sample_rate)
        piece = sound[first : first + len(row)]
        row[: len(piece)] = piece / np.float32(32767)
    return windows


def decode_signal(
    data: bytes, entry: Modality, rate: float, starts: NDArray[np.float64], count: int, step: float
) -> NDArray[np.float32]:
    """Returns windows (K, N, C) of a signal member, by linear interpolation.

    - `entry`: its modality.
    - `rate`: Hz of the stored signal.
    - `starts`: start times (K,) in seconds.
    - `count`, `step`: N, and the seconds between samples.

    Raises `ValueError` for a damaged member, and for one with other channels than its modality has.
    """
    signal = stored_signal(data, entry).astype(np.float32)
    times = starts[:, None] + np.arange(count) * step
    places = np.arange(len(signal)) / rate
    channels = [np.interp(times, places, channel) for channel in signal.T]
    return np.stack(channels, axis=-1).astype(np.float32)
