"""Write a video again with something painted on its frames and its sound unchanged."""

import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from ..errors import RequestError
from .container_io import FrameReader, file_name, find_pictures, open_media, pixel_aspect, to_planar
from .damaged_packets import Damage, clock_of, decode, order_of
from .soundtrack import choose_sound

SUFFIXES = (".mp4", ".mkv", ".mov")
# Codecs that MP4 can store without re-encoding.
COPIED_SOUND = {"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}
# Seconds by which sound is written ahead of the pictures: players want both close together.
SOUND_AHEAD = 0.5

Paint = Callable[[NDArray[np.uint8]], None]


class FrameRewriter:
    """Reads `source` a second time and writes `target` frame by frame, in constant memory.

    Every frame keeps its time and its size (rounded to even pixels), and is written upright. Sound is copied, or
    encoded as AAC if the container cannot store its codec. Raises `RequestError` for a target whose suffix is not in
    `SUFFIXES` or that cannot be written.
    """

    def __init__(self, source: Path, target: Path) -> None:
        if target.suffix.lower() not in SUFFIXES:
            raise RequestError(f"'{target}' is not a video name: use a name that ends in {', '.join(SUFFIXES)}")
        self.target, self.partial = target, target.with_name(f".partial-{target.name}")
        self.source = open_media(source)
        try:
            # FFmpeg would report an unwritable file only at the first frame.
            self.partial.touch()
            self.written = av.open(file_name(self.partial), "w")
        except OSError as error:
            self.source.close()
            raise RequestError(
                f"cannot write '{target}' ({error.strerror}): give a file in an existing folder"
            ) from error
        self.pictures = find_pictures(self.source)
        self.reader = FrameReader("rgb24", aspect=pixel_aspect(self.pictures) if self.pictures is not None else 1.0)
        self.frames = self._frames()
        self.held = next(self.frames, None)
        self.video: Any = None
        self.copied: Iterator[Any] | None = None
        self.sound: Any = None
        if self.held is not None:
            self._open_streams(source)

    def advance(self, time: float, paint: Paint) -> None:
        """Writes the frames before `time`, in seconds from the first. `paint` changes each (H, W, 3) in place."""
        while self.held is not None and self.held[0] < time:
            self._write_sound(self.held[0] + SOUND_AHEAD)
            seconds, frame = self.held
            picture = self.reader.read(frame)
            paint(picture)
            painted = av.VideoFrame.from_ndarray(to_planar(picture), format="yuv420p")
            painted.pts, painted.time_base = round(seconds / self.step), self.step
            self.written.mux(self.video.encode(painted))
            self.held = next(self.frames, None)

    def close(self, paint: Paint) -> None:
        """Writes the remaining frames and renames the file to `target`."""
        try:
            self.advance(float("inf"), paint)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stops here and renames what is written to `target`."""
        if self.held is not None or self.video is not None:
            self._write_sound(self.held[0] if self.held is not None else float("inf"))
            self.written.mux(self.video.encode(None))
        self.written.close()
        self.source.close()
        if self.video is None:
            self.partial.unlink()
        else:
            os.replace(self.partial, self.target)

    def _open_streams(self, source: Path) -> None:
        assert self.held is not None
        stream: Any = self.pictures
        height, width = self.reader.read(self.held[1]).shape[:2]
        self.step: Fraction = stream.time_base
        self.video = self.written.add_stream("libx264", rate=stream.average_rate or stream.guessed_rate or 25)
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        self.video.time_base = self.video.codec_context.time_base = self.step
        self.video.options = {"preset": "veryfast", "crf": "23"}
        if not self.source.streams.audio:
            return
        apart = open_media(source)
        sound = choose_sound(apart, source)
        if sound.codec_context.name in COPIED_SOUND or self.target.suffix == ".mkv":
            self.sound = self.written.add_stream_from_template(sound)
            self.copied = self._packets(apart, sound)
        else:
            self.sound = self.written.add_stream("aac", rate=sound.rate, layout=sound.layout.name)
            self.copied = self._encoded(apart, sound)
        self.waiting = next(self.copied, None)

    def _frames(self) -> Iterator[tuple[float, Any]]:
        if self.pictures is None:
            return
        origin, last = None, -math.inf
        try:
            for time, frame in self._ordered():
                self.origin = origin = time if origin is None else origin
                # No encoder accepts two frames at one time.
                if time > last:
                    yield time - origin, frame
                last = max(last, time)
        except FFmpegError:
            # A container that is damaged at its end ends the video. The prediction from it reports the fault.
            return

    def _ordered(self) -> Iterator[tuple[float, Any]]:
        order = order_of(self.source, self.pictures)
        for frame in decode(self.source, self.pictures, Damage()):
            yield from order.put(frame)
        yield from order.rest()

    def _write_sound(self, time: float) -> None:
        while self.copied is not None and self.waiting is not None and self.waiting[0] <= time:
            self.written.mux(self.waiting[1])
            self.waiting = next(self.copied, None)

    def _packets(self, container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
        """Yields (seconds from the first frame, packet shifted to that time), from the first picture on."""
        with container:
            shift = round(self.origin / stream.time_base)
            last, clock = -1, clock_of(container)
            for packet in container.demux(*container.streams.video, *container.streams.audio):
                clock.place(packet)
                if packet.stream.index != stream.index or packet.dts is None or packet.pts is None:
                    continue
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                if packet.pts < 0 or packet.dts <= last:
                    continue
                last = packet.dts
                seconds = float(packet.pts * packet.time_base)
                packet.stream = self.sound
                yield seconds, packet

    def _encoded(self, container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
        with container:
            context = self.sound.codec_context
            resampler = av.AudioResampler(context.format, context.layout, context.rate, context.frame_size or 1024)
            count = None
            for frame in decode(container, stream, Damage()):
                if frame.pts is None:
                    continue
                if count is None:
                    count = max(round((float(frame.pts * frame.time_base) - self.origin) * context.rate), 0)
                for piece in resampler.resample(frame):
                    piece.pts, piece.time_base = count, Fraction(1, context.rate)
                    seconds = count / context.rate
                    count += piece.samples
                    for packet in self.sound.encode(piece):
                        yield seconds, packet
            for packet in self.sound.encode(None):
                yield (count or 0) / context.rate, packet
