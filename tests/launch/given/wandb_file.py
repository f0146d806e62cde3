"""Reads the log of an offline run of wandb: its records in LevelDB's log format."""

import json
import struct
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7


def read_records(path: Path) -> list[Record]:
    """Every record of a `.wandb` file, whose first 7 bytes name its format."""
    data, place, parts, records = path.read_bytes(), HEADER, b"", []
    assert data[:4] == b":W&B"
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left  # no header fits in the rest of a block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last of several parts
            record = Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def read_history(run: Path) -> dict[str, Any]:
    """The newest value of every key logged by the offline runs under RUN/wandb, in order of their starts."""
    # A run's file may be ended a moment after its `finish`, at the latest when wandb's service ends with the process.
    wandb.teardown()
    found: dict[str, Any] = {}
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for record in read_records(path):
            for item in record.history.item:
                key = item.key or ".".join(item.nested_key)
                found[key] = json.loads(item.value_json)
    return found
