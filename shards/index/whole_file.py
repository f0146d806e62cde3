"""Write files atomically, and compute their digests."""

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path, keep_suffix: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder to write to. On exit it is synced to disk and renamed to `path`.

    If the block raises, the partial file is deleted and `path` stays as it was. After a power cut or a kill, `path`
    holds the old content or the new, never a part. `keep_suffix`: the partial file ends as `path` does, for writers
    that choose a format by the suffix; by default it ends in `.partial`.
    """
    # Processes may write the same file at the same time, so each has its own partial file.
    name = f".partial-{os.getpid()}-{path.name}" if keep_suffix else f"{path.name}.{os.getpid()}.partial"
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


def remove_partial(path: Path) -> None:
    """Deletes temporary files of killed writers of `path`. Call it only while no other process writes `path`."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        left.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, whole or not at all; see `whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def sha256(path: Path) -> str:
    """Returns the file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
