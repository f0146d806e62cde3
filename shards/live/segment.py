"""Sections of a connection without a break: decoded pictures and sound."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from ..media.damaged_packets import order_of
from ..media.soundtrack import MonoTrack
from .connection import Arrived, Break, Connection

# Sound that lags the pictures by more than this many seconds is not waited for.
SOUND_PATIENCE = 1.0
EMPTY = np.zeros(0, np.float32)


def iterate_sections(connection: Connection) -> Iterator["Section"]:
    """Yields sections of continuous pictures and sound. The first has an empty reason."""
    reason = ""
    while True:
        section = Section(connection, reason)
        if section.begun:
            yield section
            section.finish()
        if section.final:
            return
        reason = section.ending


class Section:
    """Pictures and sound without a break.

    - `reason`: why it does not continue what came before.
    - `clock`: monotonic time at which its first packet arrived.
    - `origin`: time of its first picture on the source's clock. None without pictures.
    """

    def __init__(self, connection: Connection, reason: str) -> None:
        self.connection, self.reason, self.ending = connection, reason, ""
        self.pictures: deque[tuple[float, av.VideoFrame]] = deque()
        self.order = None if connection.video is None else order_of(connection.container, connection.video)
        self.heard: deque[av.AudioFrame] = deque()
        self.clock = time.monotonic()
        self.origin: float | None = None
        self.seen = 0.0
        self.over = self.final = self.started = False
        self.size: tuple[int, int] | None = None
        if connection.carried is not None:
            self._see(connection.carried)
            connection.carried = None
        while not self.over and not (self.pictures if connection.video is not None else self.heard):
            self._advance()
        self.begun = bool(self.pictures or self.heard)

    @property
    def behind(self) -> float:
        """Seconds of the source that wait to be decoded."""
        return self.connection.behind

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Yields (time on the source's clock, decoded frame) in order."""
        while self.pictures or self._advance_to_picture():
            yield self.pictures.popleft()

    def sound(self, rate: int) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """Yields (time of its first sample, mono samples at `rate` Hz), with zeros for lost packets.

        An empty piece means that pictures have arrived and their sound has not.
        """
        track = MonoTrack(rate)
        while True:
            if not self.heard:
                if self.connection.video is not None:
                    reached = self.origin or 0.0 if track.start is None else track.end
                    if not self.over and self.seen - reached > SOUND_PATIENCE:
                        yield track.start or 0.0, EMPTY
                        continue
                if not self._advance() and not self.heard:
                    for samples in track.rest():
                        yield track.start or 0.0, samples
                    return
                continue
            for samples in track.put(self.heard.popleft()):
                if len(samples):
                    yield track.start or 0.0, samples

    def finish(self) -> None:
        """Skips to its end without decoding."""
        while not self.over:
            self._end_at(self.connection.take())

    def _advance_to_picture(self) -> bool:
        while not self.pictures and self._advance():
            pass
        return bool(self.pictures)

    def _advance(self) -> bool:
        """Decodes one more packet. Returns whether the section continues."""
        if self.over:
            return False
        item = self.connection.take()
        if self._end_at(item) or not isinstance(item, Arrived):
            return not self.over
        if not self.started:
            # The first packets waited while the container was opened.
            self.started, self.clock = True, item.clock if self.reason else self.connection.opened
        try:
            decoded = item.packet.decode()
        except FFmpegError:
            # A lossy network damages packets: the decoder continues with the next one.
            return True
        for frame in decoded:
            if isinstance(frame, av.VideoFrame):
                self._see(frame)
            else:
                self.heard.append(frame)
        return not self.over

    def _end_at(self, item: Arrived | Break | None) -> bool:
        if isinstance(item, Arrived):
            return False
        self.over, self.final = True, item is None
        self.ending = item.reason if item is not None else ""
        for stream in (self.connection.video, self.connection.audio):
            if stream is None or self.connection.closed:
                continue
            if item is None and self.connection.finite:
                # The last frames that a decoder buffers.
                for frame in stream.codec_context.decode(None):
                    frame.time_base = stream.time_base
                    self._see(frame) if isinstance(frame, av.VideoFrame) else self.heard.append(frame)
            else:
                stream.codec_context.flush_buffers()
        if self.order is not None:
            for seconds, frame in self.order.rest():
                self._show(seconds, frame)
        return True

    def _see(self, frame: av.VideoFrame) -> None:
        assert self.order is not None
        self.size = self.size or (frame.width, frame.height)
        if (frame.width, frame.height) != self.size:
            self.over, self.ending, self.connection.carried = True, "its picture size changed", frame
            held = self.order.rest()
        else:
            held = self.order.put(frame)
        for seconds, shown in held:
            self._show(seconds, shown)

    def _show(self, seconds: float, frame: av.VideoFrame) -> None:
        self.seen = seconds
        self.origin = seconds if self.origin is None else self.origin
        self.pictures.append((seconds, frame))
