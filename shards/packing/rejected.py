"""Recordings that cannot be read: what their readers raise, the list of them, and how many are too many."""

import csv
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
from av.error import FFmpegError

from ..errors import DataError
from ..index.whole_file import remove_partial, write_whole

# What a damaged or foreign file makes of its readers. IndexError: PyAV's answer to a container without the stream
# asked for; NotImplementedError: SciPy's to a MATLAB file of the HDF5 kind.
UNREADABLE = (
    FFmpegError,
    OSError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    zlib.error,
    csv.Error,
    cv2.error,
)
KILLED = "it killed the process that read it: a decoder's crash, or memory ran out"


@dataclass(frozen=True)
class Rejected:
    """A recording that could not be used, and why."""

    file: str
    reason: str


def reason_of(error: BaseException) -> str:
    """One line that says what one of `UNREADABLE` means."""
    text = str(getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return f"not enough memory ({text})" if isinstance(error, MemoryError) else text


def printable(path: Path | str) -> str:
    """The path as text; bytes of its name that are none are written as escapes."""
    return str(path).encode(errors="backslashreplace").decode()


def list_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """Writes one JSON line each to `path`; where there are none, an older list goes."""
    remove_partial(path)
    if rejected:
        lines = [json.dumps(asdict(item)) for item in rejected]
        write_whole(path, ("\n".join(lines) + "\n").encode())
    else:
        path.unlink(missing_ok=True)


def read_rejected(path: Path) -> list[Rejected]:
    """What `list_rejected` wrote there last."""
    if not path.is_file():
        return []
    return [Rejected(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def judge_rejected(rejected: Sequence[Rejected], total: int, most: float, path: Path, verb: str) -> None:
    """`DataError` where more than the share `most` of `total` recordings, or all of them, cannot be `verb`."""
    if rejected and (len(rejected) > most * total or len(rejected) == total):
        first = rejected[0]
        raise DataError(
            f"{len(rejected)} of {total} recordings cannot be {verb}, the first '{first.file}': {first.reason}"
            f" (all are listed in '{path}'; at most {most:.0%} may be: raise --max-rejected to go on without them)"
        )
