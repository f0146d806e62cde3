"""Where shards are: in a local folder, behind a URL that fsspec reads by byte range, or in several of these."""

import errno
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import DataError, RequestError, raise_if_exhausted
from ..media.credentials import masked

# Open files of one reader. Training reads clips from all shards in turn, so more only save calls of `open`.
MOST_OPEN = 64


@dataclass(frozen=True)
class Remote:
    """A read-only folder behind a URL (`s3://bucket/shards`, `https://host/shards`). Its text hides credentials."""

    url: str

    @property
    def name(self) -> str:
        return masked(self.url).rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return masked(self.url)


@dataclass(frozen=True)
class Joined:
    """Several folders read as one. `folders` holds (name, folder); `NAME/FILE` is the file FILE of that folder."""

    folders: tuple[tuple[str, Path | Remote], ...]

    @property
    def name(self) -> str:
        return " + ".join(name for name, _ in self.folders)

    def __str__(self) -> str:
        return " + ".join(str(folder) for _, folder in self.folders)


Location = Path | Remote | Joined


def locate(place: Path | str | Remote) -> Path | Remote:
    """Returns the folder that `place` names. Raises `RequestError` for a URL that cannot be read.

    `pipe:` is always rejected: it would run the shell command in a config or an index.
    """
    if isinstance(place, Path | Remote):
        return place
    if place.startswith("pipe:"):
        raise RequestError(f"'{place}' would run a shell command: give a folder, or a URL such as s3://bucket/shards")
    if "://" not in place:
        return Path(place)
    import fsspec

    protocol = place.split("://", 1)[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        raise RequestError(f"cannot read '{place}': {error}") from error
    return Remote(place.rstrip("/"))


class _Handle:
    """An open file. It is closed when nobody holds it: a thread may still read what another has dropped."""

    number = -1

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class OpenFiles:
    """The `most` files that were read last, open. Threads may share it; another process opens its own."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self.most = most
        self.lock = threading.Lock()
        self.held: OrderedDict[Path, _Handle] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"most": self.most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["most"])

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Returns up to `size` bytes from `offset`. Raises `OSError`, and `RequestError` for too many open files."""
        handle = self._handle(path)
        return os.pread(handle.number, size, offset)

    def close(self) -> None:
        """Closes all files. The next read opens them again."""
        with self.lock:
            self.held.clear()

    def _handle(self, path: Path) -> _Handle:
        with self.lock:
            handle = self.held.pop(path, None)
            if handle is None:
                while len(self.held) >= self.most:
                    self.held.popitem(last=False)
                handle = self._open(path)
            self.held[path] = handle
            return handle

    def _open(self, path: Path) -> _Handle:
        try:
            return _Handle(path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        # Others in this process may have used up what is left.
        self.held.clear()
        try:
            return _Handle(path)
        except OSError as error:
            raise_if_exhausted(error)
            raise


class FolderReader:
    """Reads files of one folder, whole or in part. Keeps up to `MOST_OPEN` files open until `close`.

    Threads may share it. A copy in another process opens the files anew. As a context manager it closes at the end.

    `opened`: the open files, shared with readers of other folders. Default: its own.
    """

    def __init__(self, location: Location, opened: OpenFiles | None = None) -> None:
        self.location = location
        self.opened = opened or OpenFiles()
        self._remote: tuple[Any, str] | None = None
        joined = location.folders if isinstance(location, Joined) else ()
        self._folders = {name: FolderReader(folder, self.opened) for name, folder in joined}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_remote": None}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its files. It can be used again."""
        self.opened.close()

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Returns `size` bytes of file `name` from `offset`, or the whole file without `size`.

        A name from an index is untrusted input. Raises `DataError` if it leads out of the folder, `OSError` if the
        file cannot be read, `ValueError` if it is too short, and `RequestError` if too many files are open.
        """
        folder, _, file = name.partition("/")
        if folder in self._folders:
            return self._folders[folder].read(file, offset, size)
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise DataError(f"'{self.location}': the index gives the path '{name}' instead of a file name")
        data = self._read(name, offset, size)
        if size is not None and len(data) < size:
            raise ValueError(f"'{name}' ends before byte {offset + size}")
        return data

    def _read(self, name: str, offset: int, size: int | None) -> bytes:
        if isinstance(self.location, Path):
            if size is None:
                try:
                    return (self.location / name).read_bytes()
                except OSError as error:
                    raise_if_exhausted(error)
                    raise
            return self.opened.read(self.location / name, offset, size)
        from fsspec.core import url_to_fs

        if not isinstance(self.location, Remote):
            raise DataError(f"'{self.location}': the index names '{name}', which is in none of these folders")
        try:
            if self._remote is None:
                self._remote = url_to_fs(self.location.url)
            files, root = self._remote
            if size is None:
                return files.cat_file(f"{root}/{name}")
            return files.cat_file(f"{root}/{name}", start=offset, end=offset + size)
        except OSError:
            raise
        except Exception as error:  # each client has its own errors
            raise OSError(str(error) or type(error).__name__) from error
