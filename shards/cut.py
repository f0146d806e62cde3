"""Windows cut from one packed clip, of the modalities it has."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clip_spec import ClipSpec
from .decode import decode_frames, decode_signal, decode_sound
from .index import PackSettings, Sample
from .location import FolderReader
from .modality import modality
from .sliding import Window, check_hop
from .windows import frame_times

# Windows decoded at a time: of a long clip all of them would be too many.
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
    """Streams of K windows from `starts` (K,): video (K, T, C, H, W), audio (K, N), signals (K, N, C).

    `crop`: where along the longer side the square lies; `covered`: the seconds of the clip that a window takes and
    plays in `seconds`, where they differ (never of sound). Raises `ValueError`, `OSError` and what decoding raises.
    """
    streams: dict[str, NDArray[Any]] = {}
    covered = seconds if covered is None else covered
    for name in modalities:
        entry = modality(name)
        if entry.suffix not in sample.members:
            continue
        data = files.read(sample.shard, *sample.members[entry.suffix])
        if entry.kind == "video":
            times = frame_times(starts, covered, frames)
            streams[name] = decode_frames(data, times, settings.fps, entry, size, crop)
        elif entry.kind == "audio":
            streams[name] = decode_sound(data, starts, seconds, settings.sample_rate)
        else:
            facts = json.loads(files.read(sample.shard, *sample.members["json"]))["modalities"]
            rate = float(facts[name]["rate"])
            read_at = entry.rate or rate
            step = covered / seconds / read_at
            streams[name] = decode_signal(data, rate, starts, round(seconds * read_at), step)
    return streams


def slide_clip(
    files: FolderReader,
    settings: PackSettings,
    spec: ClipSpec,
    modalities: tuple[str, ...],
    hop: float | None,
    sample: Sample,
) -> Iterator[Window]:
    """The windows of `sliding.slide`, of a packed clip: its stored flow is read, not computed again.

    Raises `ValueError` where it has none of `modalities`, and what `cut_clip` raises.
    """
    if not any(modality(name).suffix in sample.members for name in modalities):
        raise ValueError(f"it has none of {', '.join(modalities)}")
    hop = check_hop(hop, spec)
    whole = sample.duration + 1e-6 >= spec.seconds
    count = 1 + math.floor((sample.duration - spec.seconds + 1e-6) / hop) if whole else 1
    for first in range(0, count, TOGETHER):
        starts = np.arange(first, min(first + TOGETHER, count), dtype=np.float64) * hop
        streams = cut_clip(files, sample, settings, modalities, starts, spec.seconds, spec.frames, spec.size)
        for number, start in enumerate(starts.tolist()):
            end = start + spec.seconds if whole else sample.duration
            yield Window(start, end, {name: values[number] for name, values in streams.items()})
