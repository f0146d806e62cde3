"""Encoded recordings on disk, kept until all are ready to be shuffled into shards."""

import fcntl
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..index.table import SPOOL_NAME
from ..index.whole_file import write_whole
from ..media.pack_settings import PackSettings, difference
from .encode import EncodedClip, Moments
from .sources import Source, stamp

# Other versions of these give other bytes with the same settings.
ENCODERS = ("av", "opencv-python-headless", "numpy")
BOUNDS = ("max_pixels", "max_seconds")
# Used only after encoding, so a resumed packing may change them.
ORDER = ("samples_per_shard", "readers", "seed")


@dataclass(frozen=True)
class SpooledClip:
    """An encoded clip in the spool. Its members are stored one after the other in `file`, from byte `offset`.

    `members`: size in bytes by suffix, in storage order. The other fields are those of `EncodedClip`.
    """

    key: str
    group: str
    duration: float
    labels: dict[str, str]
    silent: bool
    members: dict[str, int]
    moments: dict[str, Moments]
    file: Path
    offset: int
    gaps: int = 0

    def read(self) -> dict[str, bytes]:
        """Returns the members' bytes by suffix. Raises `OSError` if the file is too short."""
        parts = {}
        with self.file.open("rb") as file:
            file.seek(self.offset)
            for suffix, size in self.members.items():
                parts[suffix] = file.read(size)
                if len(parts[suffix]) != size:
                    raise OSError(f"'{self.file}' is cut short: delete it and pack again")
        return parts


@contextmanager
def open_spool(out: Path, settings: PackSettings, beside: bool = False) -> Iterator[Path]:
    """Opens the folder `.packing` in `out`: creates it, or resumes that of an interrupted run with the same settings.

    `beside`: `out` holds a finished packing, which stays for now.

    Raises `RequestError` if `out` holds something else, if the interrupted run had other settings (the message names
    them), and if another process is packing there.
    """
    folder = out / SPOOL_NAME
    if not beside and out.exists() and (not out.is_dir() or (any(out.iterdir()) and not folder.is_dir())):
        raise RequestError(f"'{out}' already holds something: give an empty or new folder for the shards")
    clips = folder / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RequestError(f"'{out}' is being packed by another process: wait for it or stop it") from error
        _check_settings(folder / "settings.json", out, settings)
        # Left by a killed process.
        for left in (*clips.glob("*.partial"), *folder.glob("*.partial"), *out.glob("*.partial")):
            left.unlink()
        yield clips


def _check_settings(path: Path, out: Path, settings: PackSettings) -> None:
    versions = {name: importlib.metadata.version(name) for name in ENCODERS}
    wanted = json.loads(json.dumps(asdict(settings) | versions))
    if not path.is_file():
        write_whole(path, json.dumps(wanted).encode())
        return
    # Older versions declared nothing.
    begun = {"declared": []} | json.loads(path.read_text(encoding="utf-8"))
    # Raising a bound keeps what was accepted, and rejected recordings are tried again.
    free = {name: wanted[name] for name in BOUNDS if wanted[name] >= begun.get(name, wanted[name])}
    named = difference(begun | free | {name: wanted[name] for name in ORDER}, wanted)
    if named:
        raise RequestError(
            f"'{out}' holds an unfinished packing with {named}: use its settings to resume, or give another folder"
        )
    if begun != wanted:
        write_whole(path, json.dumps(wanted).encode())


class SpoolWriter:
    """Writes the clips of one recording. `close` adds them to the spool, `discard` removes them."""

    def __init__(self, spool: Path, source: Source) -> None:
        self.spool, self.source = spool, source
        self.entries: list[dict[str, Any]] = []
        # A process that outlived a killed run may still write the same recording.
        self.partial = spool / f"{source.key}.bin.{os.getpid()}.partial"
        self.file = self.partial.open("wb")

    def add(self, clip: EncodedClip) -> None:
        """Appends the clip's members."""
        moments = {
            name: [entry.count, entry.total.tolist(), entry.squares.tolist()] for name, entry in clip.moments.items()
        }
        self.entries.append(
            {
                "key": clip.key,
                "group": clip.group,
                "duration": clip.duration,
                "labels": clip.labels,
                "silent": clip.silent,
                "gaps": clip.gaps,
                "members": {suffix: len(data) for suffix, data in clip.members.items()},
                "moments": moments,
                "offset": self.file.tell(),
            }
        )
        for data in clip.members.values():
            self.file.write(data)

    def close(self) -> None:
        """Completes the recording. From now on, `holds` returns True."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.partial, _payload(self.spool, self.source))
        content = json.dumps({"stamp": stamp(self.source), "clips": self.entries})
        write_whole(_facts(self.spool, self.source), content.encode())

    def discard(self) -> None:
        """Removes a recording that cannot be packed."""
        self.file.close()
        self.partial.unlink()


def holds(spool: Path, source: Source) -> bool:
    """Returns whether the spool holds the complete recording, encoded from its present files and labels."""
    try:
        content = json.loads(_facts(spool, source).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return content["stamp"] == stamp(source) and _payload(spool, source).is_file()


def read_clips(spool: Path, source: Source) -> list[SpooledClip]:
    """Returns the clips of one encoded recording in order of time."""
    file = _payload(spool, source)
    clips = []
    for entry in json.loads(_facts(spool, source).read_text(encoding="utf-8"))["clips"]:
        moments = {
            name: Moments(count, np.array(total), np.array(squares))
            for name, (count, total, squares) in entry.pop("moments").items()
        }
        clips.append(SpooledClip(**entry, moments=moments, file=file))
    return clips


def remove_spool(out: Path) -> None:
    """Deletes the spool, which is not needed once the index exists."""
    shutil.rmtree(out / SPOOL_NAME, ignore_errors=True)


def _payload(spool: Path, source: Source) -> Path:
    return spool / f"{source.key}.bin"


def _facts(spool: Path, source: Source) -> Path:
    return spool / f"{source.key}.json"
