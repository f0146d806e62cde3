"""Undecodable packets, as damaged disks and memory cards leave them: skipped and counted, or an error."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from av.error import FFmpegError


@dataclass
class Damage:
    """Skipped packets of a recording.

    - `packets`: how many.
    - `first`, `last`: presentation times of the first and last, in seconds from the recording's start. None: unknown.
    """

    packets: int = 0
    first: float | None = None
    last: float | None = None

    def __str__(self) -> str:
        """Returns a phrase such as `2 damaged packets were skipped, from 1.5 to 1.6 s`."""
        several = self.packets > 1
        text = f"{self.packets} damaged packet{'s were' if several else ' was'} skipped"
        if self.first is None or self.last is None:
            return text
        return f"{text}, from {self.first:.1f} to {self.last:.1f} s" if several else f"{text}, at {self.first:.1f} s"

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


def decode(container: Any, stream: Any, damage: Damage | None = None) -> Iterator[Any]:
    """Yields the decoded frames of one stream of an open container.

    `damage`: counts undecodable packets, which are skipped, as players do. Without it, such a packet raises
    `ValueError`. Raises `av.FFmpegError` if the container itself cannot be read further, and `MemoryError`.
    """
    for packet in container.demux(stream):
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


def _seconds(packet: Any, container: Any) -> float | None:
    """Returns the packet's time in seconds from the recording's start, as windows are counted."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None:
        return None
    return max(float(stamp * packet.time_base) - (container.start_time or 0) / 1_000_000, 0.0)
