"""Read the sound of a media file as mono samples at a constant rate."""

import math
from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from .container_io import MediaSource, open_media
from .damaged_packets import Damage, decode


def read_sound(
    source: MediaSource, rate: int, max_seconds: float = math.inf, damage: Damage | None = None
) -> tuple[float, NDArray[np.float32]]:
    """Returns the first audio stream in mono: (time of its first sample in seconds, (N,) float32 at `rate` Hz).

    `damage`: counts undecodable packets, which become silence. Without it, such a packet raises `ValueError`. Raises
    `ValueError` for sound longer than `max_seconds`.
    """
    start, parts = 0.0, []
    for number, (time, samples) in enumerate(iterate_sound(source, rate, max_seconds, damage)):
        start = time if number == 0 else start
        parts.append(samples)
    return start, np.concatenate(parts) if parts else np.zeros(0, np.float32)


def iterate_sound(
    source: MediaSource, rate: int, max_seconds: float = math.inf, damage: Damage | None = None
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yields the sound of `read_sound` piece by piece: (time of the track's first sample, samples (n,)).

    Holds only one piece in memory. Takes the same arguments and raises the same errors.
    """
    with open_media(source) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        start: float | None = None
        length, count, skipped = 0.0, 0, 0
        for frame in decode(container, stream, damage):
            length += frame.samples / frame.sample_rate
            if length > max_seconds:
                raise ValueError(f"its sound lasts longer than {max_seconds:g} s (--max-seconds)")
            if start is None and frame.pts is not None:
                start = float(frame.pts * frame.time_base)
            if damage is not None and damage.packets > skipped and frame.pts is not None:
                skipped = damage.packets
                missing = round((float(frame.pts * frame.time_base) - (start or 0.0)) * rate) - count
                # No packet is as short as what the resampler buffers.
                if missing > rate // 100:
                    count += missing
                    for first in range(0, missing, rate):
                        yield start or 0.0, np.zeros(min(rate, missing - first), np.float32)
            for out in resampler.resample(frame):
                samples = _samples(out)
                count += len(samples)
                yield start or 0.0, samples
        for out in resampler.resample(None):
            yield start or 0.0, _samples(out)


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    return frame.to_ndarray().reshape(-1).astype(np.float32)
