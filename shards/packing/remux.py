"""Copy a video that already has the packed form, without encoding it again."""

import io
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from ..media.container_io import find_pictures, fit_short_side, open_media, pixel_aspect
from ..media.pack_settings import PackSettings

# Unspecified, and the two codes of BT.601: the fast decoder knows no other matrix.
MATRICES = (2, 5, 6)
FULL_RANGE = 2
# The NAL unit of a picture from which decoding can start without any frame before it.
IDR = 5


def copy_if_fitting(path: Path, settings: PackSettings, frames: int) -> bytes | None:
    """Returns the video stream of `path` as MP4, or None if it must be encoded.

    It can be copied if all of this holds: H.264, yuv420p, limited range, BT.601, no region; the packed size, upright,
    with square pixels; one frame at each of the `frames` times n / fps, none reordered; key frames at most
    `settings.gop` apart, and all of them IDR pictures. A file may mark other pictures as key frames, such as those of
    an intra refresh, but a window that starts there decodes wrongly.
    """
    with open_media(path) as container:
        stream = find_pictures(container)
        assert stream is not None
        context = stream.codec_context
        size = (context.width, context.height)
        if (
            settings.region is not None
            or context.codec.canonical_name != "h264"
            or context.pix_fmt != "yuv420p"
            or context.color_range == FULL_RANGE
            or context.colorspace not in MATRICES
            or context.has_b_frames
            or pixel_aspect(stream) != 1
            or size != fit_short_side(*size, settings.size)
            or next(container.decode(stream)).rotation
        ):
            return None
    with open_media(path) as container:
        stream = find_pictures(container)
        assert stream is not None
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [packet for packet in packets if packet.is_keyframe]
        fits = _on_grid(packets, settings, frames) and all(is_idr(key, stream) for key in keys)
        return _copy(stream, packets, settings.fps) if fits else None


def is_idr(packet: Any, stream: Any) -> bool:
    """Returns whether an H.264 packet holds an IDR picture. Its NAL units follow their lengths or start codes."""
    data, head = bytes(packet), bytes(stream.codec_context.extradata or b"")
    if head[:1] != b"\x01" or len(head) < 5:
        units = re.split(b"\x00\x00\x01", data)[1:]
        return any(unit and unit[0] & 31 == IDR for unit in units)
    width, place = (head[4] & 3) + 1, 0
    while place + width < len(data):
        if data[place + width] & 31 == IDR:
            return True
        place += width + int.from_bytes(data[place : place + width], "big")
    return False


def _on_grid(packets: list[Any], settings: PackSettings, frames: int) -> bool:
    if len(packets) != frames or any(packet.pts is None or packet.pts != packet.dts for packet in packets):
        return False
    first = packets[0].pts
    # Containers round times to a millisecond.
    drift = (abs((p.pts - first) * p.time_base - n / settings.fps) for n, p in enumerate(packets))
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    apart = max((after - before for before, after in pairwise([*keys, frames])), default=frames)
    return keys[:1] == [0] and apart <= settings.gop and all(seconds < 0.002 for seconds in drift)


def _copy(stream: Any, packets: list[Any], fps: float) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        copied = container.add_stream_from_template(stream)
        step = 1 / Fraction(fps).limit_denominator(30000)
        copied.time_base = step
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base = copied, step
            packet.pts = packet.dts = number
            packet.duration = 1
            container.mux(packet)
    return target.getvalue()
