"""Packets that no decoder takes, as bad disks and cards leave them: skipped and counted where that is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from av.error import FFmpegError


@dataclass
class Damage:
    """How many packets of a recording were skipped, and when the first and the last of them would have been shown, in
    seconds from its beginning."""

    packets: int = 0
    first: float | None = None
    last: float | None = None

    def __str__(self) -> str:
        """As a sentence's part: `2 damaged packets were skipped, from 1.5 to 1.6 s`."""
        several = self.packets > 1
        text = f"{self.packets} damaged packet{'s were' if several else ' was'} skipped"
        if self.first is None or self.last is None:
            return text
        return f"{text}, from {self.first:.1f} to {self.last:.1f} s" if several else f"{text}, at {self.first:.1f} s"

    def add(self, seconds: float | None) -> None:
        """One more, at `seconds` where that is known."""
        self.packets += 1
        if seconds is not None:
            self.first = seconds if self.first is None else min(self.first, seconds)
            self.last = seconds if self.last is None else max(self.last, seconds)

    def include(self, other: "Damage") -> None:
        """What another reading of the same recording has counted."""
        packets = self.packets + other.packets
        for seconds in (other.first, other.last):
            self.add(seconds)
        self.packets = packets


def decode(container: Any, stream: Any, damage: Damage | None = None) -> Iterator[Any]:
    """The frames of one stream of an open container.

    A packet that the decoder refuses is counted in `damage` and skipped: the decoder goes on at the next it
    understands, as players do. Raises `ValueError` for it where no `damage` is given, and `av.FFmpegError` where the
    container itself cannot be read on.
    """
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError as error:
            seconds = _seconds(packet, container)
            if damage is not None:
                damage.add(seconds)
                continue
            # FFmpeg has words such as "Operation not permitted" for it.
            place = "" if seconds is None else f" at {seconds:.1f} s"
            raise ValueError(f"its {stream.type}{place} cannot be decoded") from error
        yield from frames


def _seconds(packet: Any, container: Any) -> float | None:
    """From the beginning of the recording on, as windows are counted."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None:
        return None
    return max(float(stamp * packet.time_base) - (container.start_time or 0) / 1_000_000, 0.0)
