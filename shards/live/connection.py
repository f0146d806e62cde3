"""One connection to a live source: a thread reads its packets, and the caller decodes them."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import av
from av.error import ExitError, FFmpegError

from ..media.container_io import MediaFacts, find_pictures, media_facts, open_media, ranked_sound
from ..media.damaged_packets import Clock, clock_of
from .address import Address

# Their packets have no times, or those of a frame rate that FFmpeg assumes.
UNTIMED_FORMATS = {"mpjpeg", "mjpeg", "image2pipe"}
MOST_WAITING = 256


@dataclass(frozen=True)
class Break:
    """A marker between two packets: what follows does not continue what came before, because of `reason`."""

    reason: str


@dataclass(frozen=True)
class Arrived:
    """A packet, and the time on the monotonic clock when it arrived."""

    packet: Any
    clock: float


class Connection:
    """An open source whose packets are read ahead of decoding.

    - `timeout`: seconds without data after which it fails.
    - `most_seconds`: most seconds of packets that wait. Older ones are dropped, up to a key frame.
    - `pictures`, `sound`: whether to read these streams.
    - `finite`: its container has a duration. Then it is a recording: it waits to be read, and nothing is dropped.
    - `fault`: why it ended, once it has failed.

    Raises `av.FFmpegError` and `ValueError` if it cannot be opened, and `TimeoutError` after `timeout` seconds
    without data.
    """

    def __init__(
        self, address: Address, timeout: float, most_seconds: float, pictures: bool = True, sound: bool = True
    ) -> None:
        self.opened, self.timeout = time.monotonic(), timeout
        try:
            self.container = open_media(address.url, address.container_format, address.options, timeout, address=True)
        except FFmpegError as error:
            if time.monotonic() - self.opened < timeout:
                raise
            raise self._silence() from error
        self.facts: MediaFacts = media_facts(self.container)
        self.video = find_pictures(self.container) if pictures else None
        # Nothing can be heard in advance, so of several tracks the default one is taken.
        self.audio = next(iter(ranked_sound(self.container)), None) if sound else None
        self.finite = self.container.duration is not None
        # A recording is joined where its clock starts again. A camera has restarted there.
        self.clock = clock_of(self.container) if self.finite else Clock(jumps=True)
        self.untimed = self.container.format.name in UNTIMED_FORMATS and not self.finite
        self.most_seconds = most_seconds
        self.leader = self.video or self.audio
        self.waiting: deque[Arrived | Break] = deque()
        self.changed = threading.Condition()
        self.ended, self.closed = self.leader is None, False
        self.fault: Exception | None = None
        self.newest = self.taken = 0.0
        self.resync = False
        self.carried: av.VideoFrame | None = None
        self.thread = threading.Thread(target=self._read, name="connection", daemon=True)
        if self.leader is not None:
            self.thread.start()

    @property
    def behind(self) -> float:
        """Seconds of the source that wait to be taken. 0 for a recording, which cannot be late."""
        return 0.0 if self.finite else max(self.newest - self.taken, 0.0)

    def take(self) -> Arrived | Break | None:
        """Waits for the next packet or break and returns it. Returns None at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.ended or self.closed)
            if self.closed or not self.waiting:
                return None
            item = self.waiting.popleft()
            if isinstance(item, Arrived) and item.packet.stream is self.leader:
                self.taken = max(self.taken, _seconds(item.packet) or 0.0)
            self.changed.notify_all()
            return item

    def stop(self) -> None:
        """Makes `take` return. For other threads than the one that decodes."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def close(self) -> None:
        """Ends the thread, then the container. A thread that waits for the network ends after its timeout."""
        self.stop()
        if self.leader is not None:
            self.thread.join(0.5)
        if self.leader is None or not self.thread.is_alive():
            self.container.close()

    def _read(self) -> None:
        streams = (*self.container.streams.video, *self.container.streams.audio)
        read = [stream.index for stream in (self.video, self.audio) if stream is not None]
        try:
            for packet in self.container.demux(*streams):
                if self.closed:
                    break
                moved = not self.untimed and self.clock.place(packet)
                if moved and not self.finite:
                    self._restart(packet)
                if packet.size and packet.stream.index in read:
                    self._put(Arrived(packet, time.monotonic()))
        # Whatever ends this thread must not look like the end of the source.
        except Exception as error:
            self.fault = self._silence() if isinstance(error, ExitError) else error
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _silence(self) -> TimeoutError:
        """Replaces FFmpeg's messages for a timeout: "exit requested", or "invalid data"."""
        return TimeoutError(f"no data for {self.timeout:g} s")

    def _put(self, item: Arrived) -> None:
        packet = item.packet
        with self.changed:
            if self.finite:
                self.changed.wait_for(lambda: len(self.waiting) < MOST_WAITING or self.closed)
            elif packet.stream is self.leader:
                if self.untimed:
                    packet.pts = packet.dts = round(item.clock / packet.time_base)
                if self.resync and not packet.is_keyframe:
                    return
                self.resync = False
                seconds = _seconds(packet)
                if seconds is not None:
                    self.newest = max(self.newest, seconds)
                    if self.newest - self.taken > self.most_seconds and len(self.waiting) > 1:
                        self._give_up(packet)
                        if self.resync:
                            return
            elif self.resync:
                return
            self.waiting.append(item)
            self.changed.notify_all()

    def _restart(self, packet: Any) -> None:
        """Marks a break before `packet`. What follows can be decoded only from a key frame on."""
        with self.changed:
            self.waiting.append(Break("its clock jumped"))
            self.newest = self.taken = 0.0
            self.resync = packet.stream is not self.leader or not packet.is_keyframe
            self.changed.notify_all()

    def _give_up(self, packet: Any) -> None:
        """Drops the packets before the newest key frame, or all if there is none."""
        keys = [
            number
            for number, item in enumerate(self.waiting)
            if isinstance(item, Arrived) and item.packet.stream is self.leader and item.packet.is_keyframe
        ]
        kept = list(self.waiting)[keys[-1] :] if keys and not packet.is_keyframe else []
        self.waiting.clear()
        self.waiting.extend([Break("decoding is too slow"), *kept])
        first = next((item for item in kept if isinstance(item, Arrived)), None)
        self.taken = (_seconds(first.packet) or 0.0) if first is not None else self.newest
        self.resync = not kept and not packet.is_keyframe


def _seconds(packet: Any) -> float | None:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return None if stamp is None else float(stamp * packet.time_base)
