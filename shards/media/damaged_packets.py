"""The packets of a stream: damaged ones, clocks that start again, and times that do not follow the display order."""

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from av.error import FFmpegError

# A clock that steps back by more than these seconds has started again, as where two captures were joined.
STEP_BACK = 0.1
# A longer gap is a clock jump, not a pause (transport and program streams).
STEP_AHEAD = 10.0
# Gaps of fewer seconds are not listed: they are shorter than a packet, such as the drift of a clock.
SHORTEST_GAP = 0.015
# AVFMT_TS_DISCONT: times of this format may jump.
_JUMPING = 0x0200
# Frames that are held back in AVI, whose time stamps are those of decoding: as many as encoders usually reorder.
_AVI_DEPTH = 8


@dataclass
class Damage:
    """Skipped packets of a recording, and what is missing from its sound.

    - `packets`: how many.
    - `first`, `last`: presentation times of the first and last, in seconds from the recording's start. None: unknown.
    - `gaps`: (start, end) of missing sound, which becomes silence, in seconds from the recording's start.
    """

    packets: int = 0
    first: float | None = None
    last: float | None = None
    gaps: list[tuple[float, float]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self.packets or self.gaps)

    def __str__(self) -> str:
        """Returns a phrase such as `2 damaged packets were skipped, from 1.5 to 1.6 s`; empty without damage."""
        return "; ".join(part for part in (self._skipped(), self._missing()) if part)

    def _skipped(self) -> str:
        if not self.packets:
            return ""
        several = self.packets > 1
        text = f"{self.packets} damaged packet{'s were' if several else ' was'} skipped"
        if self.first is None or self.last is None:
            return text
        return f"{text}, from {self.first:.1f} to {self.last:.1f} s" if several else f"{text}, at {self.first:.1f} s"

    def _missing(self) -> str:
        if not self.gaps:
            return ""
        start, end = self.gaps[0]
        more = f" and {len(self.gaps) - 1} more times" if len(self.gaps) > 1 else ""
        return f"sound is missing from {start:.1f} to {end:.1f} s{more}"

    def add(self, seconds: float | None) -> None:
        """Counts one packet, at `seconds` if known."""
        self.packets += 1
        if seconds is not None:
            self.first = seconds if self.first is None else min(self.first, seconds)
            self.last = seconds if self.last is None else max(self.last, seconds)

    def include(self, other: "Damage") -> None:
        """Adds the damage that another pass over the same recording found."""
        packets = self.packets + other.packets
        for seconds in (other.first, other.last):
            self.add(seconds)
        self.packets = packets
        self.gaps += other.gaps


class Clock:
    """Places the packets of all streams of a file on one clock that does not start again.

    Where captures were joined, such as by `cat a.ts b.ts`, time stamps jump. All streams then move by the same number
    of seconds, so that what follows continues where the part before ended, and stays in time with its own sound.

    AVI has no presentation times. FFmpeg makes them up, one frame late if there may be reordered frames: a decoder
    returns the first frame with the second packet. But the first picture belongs to the first sample of sound.

    - `jumps`: a step ahead by more than `STEP_AHEAD` is such a joint as well.
    - `delayed`: pictures may be a frame late, as in AVI.
    """

    def __init__(self, jumps: bool, delayed: bool = False) -> None:
        self.jumps, self.delayed = jumps, delayed
        # By stream number: by how much presentation times are late.
        self.delays: dict[int, int] = {}
        self.offsets = [0.0]
        self.now = -math.inf
        # By stream number: its part, its last two times, and the end of its last packet on the common clock.
        self.parts: dict[int, int] = {}
        self.last: dict[int, tuple[float, float]] = {}
        self.ends: dict[int, float] = {}

    def place(self, packet: Any) -> bool:
        """Moves the packet's time stamps in place. Returns whether it begins a new part."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return False
        stream, seconds = packet.stream.index, float(stamp * packet.time_base)
        if self.delayed and packet.stream.type == "video" and None not in (packet.pts, packet.dts):
            late = self.delays.setdefault(stream, min(packet.pts - packet.dts, packet.duration or 1))
            packet.pts -= late
        begun = self._enter(stream, seconds)
        offset = self.offsets[self.parts.get(stream, 0)]
        if offset:
            shift = round(offset / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        before = self.last.get(stream, (seconds, seconds))[1]
        self.last[stream] = (before, seconds)
        length = float((packet.duration or 0) * packet.time_base) or min(max(seconds - before, 0.0), 1.0)
        self.now, self.ends[stream] = seconds + offset, seconds + offset + length
        return begun

    def _enter(self, stream: int, seconds: float) -> bool:
        """Chooses the stream's part for a packet at `seconds` of its own clock."""
        part, newest = self.parts.get(stream, 0), len(self.offsets) - 1
        if part < newest:
            # Another stream has reached the next part. Packets of the part before may still follow it.
            old, new = seconds + self.offsets[part], seconds + self.offsets[newest]
            if abs(new - self.now) < abs(old - self.now):
                self.parts[stream] = newest
            return False
        if stream not in self.last:
            return False
        earlier, last = self.last[stream]
        back = seconds < last - STEP_BACK
        # A single wrong time stamp is not a joint: the next packet continues what came before it.
        if back and earlier - STEP_BACK <= seconds <= earlier + 1.0 and earlier != last:
            return False
        ahead = seconds - last > STEP_AHEAD and seconds + self.offsets[part] - self.now > STEP_AHEAD
        if not (back or (ahead and self.jumps)):
            return False
        self.offsets.append(self.ends[stream] - seconds)
        self.parts[stream] = newest + 1
        return True


def clock_of(container: Any) -> Clock:
    """Returns the clock of a file that is read from its beginning."""
    return Clock(bool(container.format.flags & _JUMPING), container.format.name == "avi")


def order_of(container: Any, stream: Any) -> "DisplayOrder":
    """Returns the display order of a video stream of an open container."""
    return DisplayOrder(stream, _AVI_DEPTH if container.format.name == "avi" else 0)


def is_joined(container: Any) -> bool:
    """Returns whether the clock of a file starts again somewhere. Reads all of its packets."""
    clock = clock_of(container)
    return any(clock.place(packet) for packet in container.demux(_timed(container)))


def decode(container: Any, stream: Any, damage: Damage | None = None) -> Iterator[Any]:
    """Yields the decoded frames of one stream of an open container, on a clock that does not start again.

    `damage`: counts undecodable packets, which are skipped, as players do. Without it, such a packet raises
    `ValueError`. Raises `av.FFmpegError` if the container itself cannot be read further, and `MemoryError`.
    """
    clock = clock_of(container)
    for packet in container.demux(_timed(container)):
        clock.place(packet)
        if packet.stream.index != stream.index:
            continue
        try:
            frames = packet.decode()
        except MemoryError:
            # The packet may be whole.
            raise
        except FFmpegError as error:
            seconds = _seconds(packet, container)
            if damage is not None:
                damage.add(seconds)
                continue
            # FFmpeg's own message may be misleading, such as "Operation not permitted".
            place = "" if seconds is None else f" at {seconds:.1f} s"
            raise ValueError(f"its {stream.type}{place} cannot be decoded") from error
        yield from frames


def _timed(container: Any) -> list[Any]:
    """Returns the streams that show where the clock starts again: all, so that every pass over the file agrees."""
    return [*container.streams.video, *container.streams.audio]


def _seconds(packet: Any, container: Any) -> float | None:
    """Returns the packet's time in seconds from the recording's start, as windows are counted."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None:
        return None
    return max(float(stamp * packet.time_base) - (container.start_time or 0) / 1_000_000, 0.0)


class DisplayOrder:
    """Gives decoded frames their times. Frames arrive in display order, but their time stamps may not.

    AVI stores the order of decoding. Its time stamps are right as a set, so the earliest one belongs to the first
    frame. As many frames are held back as the codec reorders, and at least `depth`.
    """

    def __init__(self, stream: Any, depth: int = 0) -> None:
        self.context = stream.codec_context
        self.period = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        self.frames: deque[Any] = deque()
        self.times: list[float] = []
        self.last: float | None = None
        self.newest = -math.inf
        self.depth = depth

    def put(self, frame: Any) -> Iterator[tuple[float, Any]]:
        """Takes the next frame. Yields (time in seconds, frame) of those whose time is certain."""
        if frame.pts is not None:
            time = float(frame.pts * frame.time_base)
        elif self.newest > -math.inf:
            time = self.newest + self.period
        else:
            time = 0.0
        self.newest = max(self.newest, time)
        self.frames.append(frame)
        heapq.heappush(self.times, time)
        self.depth = max(self.depth, int(self.context.has_b_frames))
        while len(self.frames) > self.depth:
            yield self._next()

    def rest(self) -> Iterator[tuple[float, Any]]:
        """Yields the frames that were held back."""
        while self.frames:
            yield self._next()

    def _next(self) -> tuple[float, Any]:
        time = heapq.heappop(self.times)
        self.last = time if self.last is None else max(time, self.last)
        return self.last, self.frames.popleft()
