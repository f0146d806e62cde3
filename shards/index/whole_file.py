"""Write files atomically, keep what must not be replaced, and compute digests."""

import glob
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RequestError

# This machine in the names of partial files: on a shared disk, another machine's process may have the same number.
_HERE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_OURS = re.compile(rf"(?:\.partial-{_HERE}-(\d+)-.*|.*\.{_HERE}-(\d+)\.partial)")
_THEIRS = re.compile(r"\.partial-[0-9a-f]{8}-\d+-.*|.*\.[0-9a-f]{8}-\d+\.partial")
# A partial file of another machine that nobody wrote to for this many seconds has lost its writer.
LOST = 24 * 3600.0
# The first bytes of summaries, which the same command writes again from the same results.
SUMMARIES = {
    "summary of figures in JSON": (b'{\n  "', b"{}", b"[\n  ", b"[]"),
    "page in HTML": (b"<!doctype html",),
    "picture in PNG": (b"\x89PNG",),
}
FIGURES, PAGE, PICTURE = SUMMARIES
# A key of the JSON files that describe a bundle or shards.
_NO_SUMMARY = b'"format_version"'
# The folders that this process has tidied.
_tidied = set[Path]()


@contextmanager
def whole_file(path: Path, keep_suffix: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder to write to. On exit it is synced to disk and renamed to `path`.

    If the block raises, the partial file is deleted and `path` stays as it was. After a power cut or a kill, `path`
    holds the old content or the new, never a part. `keep_suffix`: the partial file ends as `path` does, for writers
    that choose a format by the suffix; by default it ends in `.partial`. The first call for a folder removes partial
    files of killed writers.
    """
    if path.parent not in _tidied:
        _tidied.add(path.parent)
        remove_lost(path.parent)
    # Processes may write the same file at the same time, so each has its own partial file.
    me = f"{_HERE}-{os.getpid()}"
    name = f".partial-{me}-{path.name}" if keep_suffix else f"{path.name}.{me}.partial"
    partial = path.with_name(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def remove_lost(folder: Path) -> None:
    """Deletes the partial files in `folder` whose writers were killed: processes of this machine that have ended."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            ours = _OURS.fullmatch(entry.name)
            if ours is not None:
                lost = not _runs(int(ours[1] or ours[2]))
            else:
                lost = _THEIRS.fullmatch(entry.name) is not None and time.time() - entry.stat().st_mtime > LOST
            if lost:
                Path(entry).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def remove_partial(path: Path) -> None:
    """Deletes temporary files of killed writers of `path`. Call it only while no other process writes `path`."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        left.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, whole or not at all; see `whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def keep_results(path: Path, option: str, overwrite: bool = False) -> None:
    """Refuses to replace what may hold the result of long work, unless `overwrite`. Call it before the work.

    An empty file holds nothing, and a device or a pipe keeps nothing.

    - `option`: names the path on the command line, as `--out`.

    Raises `RequestError` if something is at `path`.
    """
    if not overwrite and _holds(path):
        raise RequestError(f"'{path}' already exists: give another {option}, or add --overwrite")


def keep_others(path: Path, option: str, form: str) -> None:
    """Refuses to replace anything but a summary of the same `form`, a name in `SUMMARIES`.

    The same command makes a summary again, so a new one replaces it. Raises `RequestError` for other content.
    """
    if not path.is_file() or not _holds(path):
        return
    content = path.read_bytes()
    begin = content[:16].lower()
    if _NO_SUMMARY in content or not any(begin.startswith(signature.lower()) for signature in SUMMARIES[form]):
        raise RequestError(f"'{path}' already exists and is not a {form}: give another {option}")


def _holds(path: Path) -> bool:
    if path.is_dir():
        return any(path.iterdir())
    return path.is_file() and path.stat().st_size > 0


def sha256(path: Path) -> str:
    """Returns the file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
