"""Damage inside a media file: bytes of chosen packets overwritten, all else as it was."""

from collections.abc import Iterable
from pathlib import Path

import av


def overwrite_packets(path: Path, kind: str, numbers: Iterable[int]) -> None:
    """Of the first stream of `kind` (`video` or `audio`), by the order in which they are stored."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.get({kind: 0})) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        place, size = packets[number].pos, packets[number].size
        assert place is not None
        data[place : place + size] = b"\xa5" * size
    path.write_bytes(data)
