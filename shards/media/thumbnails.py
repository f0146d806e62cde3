"""Single frames of a video at given times, as JPEG."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
from av.error import FFmpegError

from .container_io import FrameReader, find_pictures, iterate_frames, open_media, pixel_aspect
from .damaged_packets import Damage, decode, is_joined, order_of

QUALITY = 82
# Seconds by which a time may be off: times are rounded to a millisecond.
SLACK = 5e-4


def stills(video: Path, times: Sequence[float], short_side: int = 240) -> list[bytes | None]:
    """Returns a JPEG for each of `times`, in seconds from the first frame: the frame shown then, upright.

    An entry is None if nothing can be decoded there. Damaged packets are skipped. Decoding starts at the key frame
    before each time, or at the beginning if the container cannot seek there or joins several captures. Raises
    `av.FFmpegError` if the file cannot be opened, and `ValueError` if it has no video.
    """
    with open_media(video) as container:
        pictures = find_pictures(container)
        if pictures is None:
            raise ValueError("it has no pictures")
        with open_media(video) as again:
            seekable = not is_joined(again)
        origin = next((time for time, _ in iterate_frames(video, Damage())), 0.0)
        reader = FrameReader("rgb24", short_side, aspect=pixel_aspect(pictures))
        return [_still(video, container if seekable else None, origin + time, reader) for time in times]


def _still(video: Path, container: Any | None, time: float, reader: FrameReader) -> bytes | None:
    try:
        found = None if container is None else _shown_at(_from(container, time), time)
        if found is None or found[0] > time + SLACK:
            found = _shown_at(iterate_frames(video, Damage()), time)
        if found is None:
            return None
        picture = cv2.cvtColor(reader.read(found[1]), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    except FFmpegError:
        return None


def _from(container: Any, time: float) -> Iterable[tuple[float, Any]]:
    """Yields (time, frame) from the key frame before `time` on."""
    stream = find_pictures(container)
    assert stream is not None
    container.seek(int(time / stream.time_base), stream=stream)
    order = order_of(container, stream)
    for frame in decode(container, stream, Damage()):
        yield from order.put(frame)
    yield from order.rest()


def _shown_at(frames: Iterable[tuple[float, Any]], time: float) -> tuple[float, Any] | None:
    """Returns the last frame up to `time`, or else the first."""
    shown = None
    for found in frames:
        if shown is not None and found[0] > time + SLACK:
            break
        shown = found
    return shown
