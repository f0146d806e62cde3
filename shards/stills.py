"""Single pictures of a video at given times, as JPEG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from av.error import FFmpegError

from .media import FrameReader, open_media

QUALITY = 82


def stills(video: Path, times: Sequence[float], short_side: int = 240) -> list[bytes | None]:
    """A JPEG for each of `times`, in seconds from the first frame: the frame shown then, turned as it is displayed.

    None where that place cannot be decoded. Only from the key frame before a time on is anything decoded.
    Raises `av.FFmpegError` where the file cannot be opened, `ValueError` where it has no pictures.
    """
    with open_media(video) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        origin = next((_time(frame) for frame in container.decode(stream) if frame.pts is not None), 0.0)
        return [_still(container, stream, origin + time, FrameReader("rgb24", short_side)) for time in times]


def _still(container: Any, stream: Any, time: float, reader: FrameReader) -> bytes | None:
    # Half a millisecond: times are rounded to one.
    limit = time + 5e-4
    try:
        frame = _shown_at(container, stream, time, limit)
        if frame is None or _time(frame) > limit:
            # A container without an index may land beyond the place that was asked for.
            frame = _shown_at(container, stream, 0.0, limit)
        if frame is None:
            return None
        picture = cv2.cvtColor(reader.read(frame), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    except FFmpegError:
        return None


def _shown_at(container: Any, stream: Any, start: float, limit: float) -> Any:
    """The last frame up to `limit`, or else the first, decoded from the key frame before `start` on."""
    container.seek(int(start / stream.time_base), stream=stream)
    shown = None
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        if shown is not None and _time(frame) > limit:
            break
        shown = frame
    return shown


def _time(frame: Any) -> float:
    return float(frame.pts * frame.time_base)
