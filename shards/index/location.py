"""Where shards are: in a local folder, behind a URL that fsspec reads by byte range, or in several of these."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, RequestError
from ..media.credentials import masked


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


class FolderReader:
    """Reads files of one folder, whole or in part. Keeps files open, and opens them anew in another process."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._opened: dict[str, int] = {}
        self._remote: tuple[Any, str] | None = None
        joined = location.folders if isinstance(location, Joined) else ()
        self._folders = {name: FolderReader(folder) for name, folder in joined}

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "_opened": {}, "_remote": None, "_folders": self._folders}

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Returns `size` bytes of file `name` from `offset`, or the whole file without `size`.

        A name from an index is untrusted input. Raises `DataError` if it leads out of the folder, `OSError` if the
        file cannot be read, and `ValueError` if it is too short.
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
                return (self.location / name).read_bytes()
            if name not in self._opened:
                self._opened[name] = os.open(self.location / name, os.O_RDONLY)
            return os.pread(self._opened[name], size, offset)
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
