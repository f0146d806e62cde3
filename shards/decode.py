"""From a shard member's bytes to the arrays of a few windows, decoding no more than they need."""

import io
import wave
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .media import open_media
from .modality import Modality


def decode_frames(
    data: bytes, times: NDArray[np.float64], fps: float, entry: Modality, size: int, crop: tuple[float, float]
) -> NDArray[Any]:
    """The frames nearest to `times` (any shape S, seconds): (*S, C, size, size), uint8, or uint16 for depth.

    A packed video has a constant rate, so a frame is named by its number; past the end the last one is repeated. Of
    every run of frames from one key frame to the next, only those up to the last one asked for are decoded, and
    only those asked for are converted. `crop`: where along the longer side the square lies, as (vertical,
    horizontal) shares in [0, 1]. Raises `ValueError` where no frame can be decoded.
    """
    wanted = np.maximum(np.floor(times.reshape(-1) * fps + 1e-6).astype(int), 0)
    pictures: dict[int, NDArray[Any]] = {}
    with open_media(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        if stream.frames:
            wanted = np.minimum(wanted, stream.frames - 1)
        missing = set(wanted.tolist())
        ticks = fps * float(stream.time_base)
        origin = stream.start_time or 0

        def keep(frames: list[Any]) -> None:
            for frame in frames:
                number = round((frame.pts - origin) * ticks)
                if number in missing:
                    pictures[number] = crop_square(_to_channels(frame, entry), size, crop)
                    missing.discard(number)

        for run in _key_frame_runs(container.demux(stream)):
            numbers = [round((packet.pts - origin) * ticks) for packet in run]
            asked = [place for place, number in enumerate(numbers) if number in missing]
            for packet in run[: asked[-1] + 1] if asked else ():
                keep(packet.decode())
            if not missing:
                break
        keep(stream.decode(None))
    if not pictures:
        raise ValueError("no frame could be decoded")
    numbers = np.array(sorted(pictures))
    nearest = np.clip(np.searchsorted(numbers, wanted), 0, len(numbers) - 1)
    stack = np.stack([pictures[number] for number in numbers[nearest].tolist()])
    return stack.reshape(*times.shape, *stack.shape[1:])


def _key_frame_runs(packets: Iterable[Any]) -> Iterator[list[Any]]:
    """Packets from each key frame up to the next; they need no others to be decoded."""
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


def _to_channels(frame: Any, entry: Modality) -> NDArray[Any]:
    """A decoded frame as (C, H, W): RGB, the two halves of a flow picture, or the gray plane."""
    if entry.channels == 3:
        # One planar-to-RGB conversion by OpenCV costs a third of a swscale pass per frame.
        return cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420).transpose(2, 0, 1)
    gray16 = frame.format.name.startswith("gray16")
    plane = frame.planes[0]
    row = plane.line_size // (2 if gray16 else 1)
    luminance = np.frombuffer(plane, np.uint16 if gray16 else np.uint8)
    luminance = luminance.reshape(frame.height, row)[:, : frame.width]
    return luminance.reshape(entry.channels, frame.height // entry.channels, frame.width)


def crop_square(picture: NDArray[Any], size: int, crop: tuple[float, float]) -> NDArray[Any]:
    """The square of (C, H, W) that `crop` names, at `size` x `size`; a copy, so the decoder's frame is freed."""
    height, width = picture.shape[1:]
    side = min(height, width)
    top, left = round(crop[0] * (height - side)), round(crop[1] * (width - side))
    square = picture[:, top : top + side, left : left + side]
    if side == size:
        return square.copy()
    nearest = picture.dtype == np.uint16 or side < size
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
    return np.stack([cv2.resize(np.ascontiguousarray(c), (size, size), interpolation=how) for c in square])


def decode_sound(data: bytes, starts: NDArray[np.float64], seconds: float, sample_rate: int) -> NDArray[np.float32]:
    """Windows (K, N) of a PCM wave member in [-1, 1]; past its end there is silence."""
    with wave.open(io.BytesIO(data)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    windows = np.zeros((len(starts), round(seconds * sample_rate)), np.float32)
    for row, start in zip(windows, starts, strict=True):
        first = round(float(start) * sample_rate)
        piece = sound[first : first + len(row)]
        row[: len(piece)] = piece / np.float32(32767)
    return windows


def decode_signal(
    data: bytes, rate: float, starts: NDArray[np.float64], seconds: float, target_rate: float
) -> NDArray[np.float32]:
    """Windows (K, N, C) of a signal member of `rate` Hz, read at `target_rate` by linear interpolation."""
    signal = np.load(io.BytesIO(data), allow_pickle=False).astype(np.float32)
    count = round(seconds * target_rate)
    times = starts[:, None] + np.arange(count) / target_rate
    places = np.arange(len(signal)) / rate
    channels = [np.interp(times, places, channel) for channel in signal.T]
    return np.stack(channels, axis=-1).astype(np.float32)
