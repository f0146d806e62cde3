"""Recordings that cannot be read: the list of rejected files, and the allowed share."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DataError
from ..index.whole_file import remove_partial, write_whole

KILLED = "the process that read it died: its decoder crashed or memory ran out"


@dataclass(frozen=True)
class Rejected:
    """A recording that could not be used, and the reason."""

    file: str
    reason: str


def printable(path: Path | str) -> str:
    """Returns the path as text. Bytes of its name that are not UTF-8 become escapes."""
    return str(path).encode(errors="backslashreplace").decode()


def list_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """Writes one JSON line per rejected recording to `path`. Deletes an older list if there are none."""
    remove_partial(path)
    if rejected:
        lines = [json.dumps(asdict(item)) for item in rejected]
        write_whole(path, ("\n".join(lines) + "\n").encode())
    else:
        path.unlink(missing_ok=True)


def read_rejected(path: Path) -> list[Rejected]:
    """Reads what `list_rejected` last wrote to `path`."""
    if not path.is_file():
        return []
    return [Rejected(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def judge_rejected(rejected: Sequence[Rejected], total: int, most: float, path: Path, verb: str) -> None:
    """Raises `DataError` if all of `total` recordings are rejected, or more than the share `most`.

    `verb`: what failed, such as `packed`.
    """
    if rejected and (len(rejected) > most * total or len(rejected) == total):
        first = rejected[0]
        raise DataError(
            f"{len(rejected)} of {total} recordings cannot be {verb}, the first '{first.file}': {first.reason}"
            f" (full list in '{path}'; at most {most:.0%} may fail: raise --max-rejected to skip them)"
        )
