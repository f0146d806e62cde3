"""Encode one piece of a recording as the members of a shard."""

import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..media.container_io import write_video, write_wave
from ..media.flow import quantise_flow
from ..media.pack_settings import PackSettings
from ..modality import modality
from .recording import Recording, read_recording
from .remux import copy_if_fitting
from .sources import Source

# Encoded once, decoded in every epoch. The preset disables CABAC and deblocking, which halves decoding time; a better
# motion search halves the bytes again. Other savings (adaptive quantisation trees, 4 x 4 intra blocks) make the bytes
# depend on the processor.
H264 = {"preset": "ultrafast", "x264-params": "me=hex:subme=4:partitions=p8x8"}


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of a stream's values per channel, in its unit. They add up over clips."""

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True)
class EncodedClip:
    """One clip as it goes into a shard, and what the index keeps of it.

    - `key`: key of the clip.
    - `group`: its value in the label column `group`, or else the key of its recording. Clips of one group must not be
      divided by a split.
    - `duration`: seconds.
    - `labels`: label values by column.
    - `members`: bytes by suffix.
    - `moments`: moments of the values by modality.
    - `silent`: the sound track is silence, so there is no audio member.
    - `gaps`: parts of the sound that the recording lacks. They are silent.
    """

    key: str
    group: str
    duration: float
    labels: dict[str, str]
    members: dict[str, bytes]
    moments: dict[str, Moments]
    silent: bool = False
    gaps: int = 0


def encode_source(source: Source, settings: PackSettings) -> Iterator[EncodedClip]:
    """Yields the clips of one recording in order. Raises one of `UNREADABLE` if the recording cannot be packed."""
    pieces = read_recording(source.files, settings, source.rates)
    number, piece = 0, next(pieces, None)
    while piece is not None:
        following = next(pieces, None)
        cut = number > 0 or following is not None
        if piece.streams and cut:
            yield encode_clip(source, f"{source.key}-{number:03d}", piece, settings)
        elif piece.streams:
            yield encode_whole(source, piece, settings)
        number, piece = number + 1, following


def encode_whole(source: Source, recording: Recording, settings: PackSettings) -> EncodedClip:
    """Encodes a recording that is a single piece. Copies a video that already has the packed form."""
    video, ready = source.files.get("video"), {}
    if "rgb" in recording.streams and video is not None and not video.is_dir():
        copied = copy_if_fitting(video, settings, len(recording.streams["rgb"]))
        ready = {} if copied is None else {"rgb": copied}
    return encode_clip(source, source.key, recording, settings, ready)


def encode_clip(
    source: Source, key: str, recording: Recording, settings: PackSettings, ready: dict[str, bytes] | None = None
) -> EncodedClip:
    """Encodes the streams of one piece. The same piece gives the same bytes on every machine.

    `ready`: members by modality that are used as they are.
    """
    ready = ready or {}
    members: dict[str, bytes] = {}
    facts: dict[str, dict[str, Any]] = {}
    moments: dict[str, Moments] = {}
    for name, values in recording.streams.items():
        entry = modality(name)
        if entry.flow_of:
            values = quantise_flow(values, settings.flow_bound)
            facts[name] = {"bound": settings.flow_bound, "unit": entry.unit}
            moments[name] = _in_pixels(_moments(values, 1), settings.flow_bound)
        else:
            facts[name] = {"unit": entry.unit}
            # A depth of 0 was not measured: it is not a distance.
            counted = values[values > 0] if entry.kind == "video" and values.ndim == 3 else values
            moments[name] = _moments(counted, values.ndim - 1 if values.ndim in (2, 4) else None)
        if name in recording.gaps:
            facts[name]["gaps"] = recording.gaps[name]
        if name in recording.rates:
            facts[name]["rate"] = recording.rates[name]
        members[entry.suffix] = ready[name] if name in ready else _encode(name, values, settings)
        # A flipped bit usually still decodes. A checksum per member identifies the damaged clip.
        facts[name]["length"] = len(values)
        facts[name]["crc32"] = zlib.crc32(members[entry.suffix])
    group = source.labels.get("group") or source.key
    content = {
        "source": next(iter(source.files.values())).name,
        "start": recording.start,
        "fps": settings.fps,
        "duration": recording.duration,
        "labels": source.labels,
        "group": group,
        "modalities": facts,
    }
    members["json"] = json.dumps(content, sort_keys=True).encode()
    lost = sum(map(len, recording.gaps.values()))
    return EncodedClip(key, group, recording.duration, source.labels, members, moments, recording.silent, lost)


def _encode(name: str, values: NDArray[Any], settings: PackSettings) -> bytes:
    target = io.BytesIO()
    kind, flow = modality(name).kind, bool(modality(name).flow_of)
    if kind == "audio":
        write_wave(target, values, settings.sample_rate)
    elif kind == "signal":
        np.save(target, values, allow_pickle=False)
    elif values.dtype == np.uint16:
        # Every frame is a key frame, so a reader decodes only the frames it needs: FFV1 is slow on noise.
        write_video(
            target,
            values,
            settings.fps,
            codec="ffv1",
            pixel_format="gray16le",
            container_format="matroska",
            options={"g": "1"},
        )
    else:
        # The two flow planes are stacked vertically as luminance, at a quality that keeps errors near 1/100 of the
        # bound.
        stacked = values.reshape(len(values), -1, values.shape[-1]) if flow else values
        quality = "8" if flow else str(settings.crf)
        options = {"crf": quality, "g": str(settings.gop), "bf": "0", **H264}
        write_video(target, stacked, settings.fps, container_format="mp4", options=options)
    return target.getvalue()


def _moments(values: NDArray[Any], channel_axis: int | None) -> Moments:
    channels = values[..., None] if channel_axis is None else np.moveaxis(values, channel_axis, -1)
    rows = channels.reshape(-1, channels.shape[-1])
    if rows.dtype != np.uint8:
        wide = rows.astype(np.float64)
        return Moments(len(wide), wide.sum(axis=0), np.square(wide).sum(axis=0))
    # Counting levels is exact, and several times faster than summing bytes as floats.
    counts = np.stack([np.bincount(channel, minlength=256) for channel in rows.T])
    levels = np.arange(256.0)
    return Moments(len(rows), counts @ levels, counts @ levels**2)


def _in_pixels(stored: Moments, bound: float) -> Moments:
    """Converts moments of flow bytes to moments in pixel/frame: v = (byte - 128) bound / 127."""
    scale = bound / 127
    total = (stored.total - 128 * stored.count) * scale
    squares = (stored.squares - 256 * stored.total + 128**2 * stored.count) * scale**2
    return Moments(stored.count, total, squares)
