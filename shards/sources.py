"""What there is to pack: the recordings of a folder, joined by a label file or by their names."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import RequestError
from .modality import MODALITIES

SUFFIXES: dict[str, frozenset[str]] = {
    "video": frozenset(
        {".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp"}
    ),
    "audio": frozenset({".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus"}),
    "signal": frozenset({".csv", ".npy"}),
}
LABEL_FILE = "labels.csv"


@dataclass(frozen=True)
class Source:
    """One recording: `files` by what they hold (`video`, with its sound, or the name of a modality).

    `problem`: why it cannot be packed, where its name or its place already tells.
    """

    key: str
    files: dict[str, Path]
    labels: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def path(self) -> Path:
        """The file that stands for it: the video, where it has one."""
        return next(iter(self.files.values()))


def stamp(source: Source) -> list[Any]:
    """What changes when a file or the labels do: names, sizes in bytes, times of writing."""
    facts = []
    for kind, path in source.files.items():
        status = path.stat()
        facts.append([kind, path.name, status.st_size, status.st_mtime_ns])
    return [facts, source.labels]


def fingerprint(sources: list[Source]) -> str:
    """A digest of the recordings' keys, file names and labels."""
    facts = [[item.key, {kind: file.name for kind, file in item.files.items()}, item.labels] for item in sources]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def find_sources(folder: Path, labels: Path | None = None) -> list[Source]:
    """The recordings below `folder`, in a stable order.

    With a label file (`labels`, or `labels.csv` in the folder), its columns named `video` or after a modality are
    paths relative to it, all others are labels. Without one, every media file counts; files of one stem in
    folders named `video`, `audio`, `depth`, ... are one recording.

    Raises `RequestError` for a missing or empty folder, one without media, and a label file that is malformed or
    names absent files.
    """
    if not folder.is_dir():
        raise RequestError(f"no folder at '{folder}': give the folder of recordings to pack")
    table = labels or (folder / LABEL_FILE if (folder / LABEL_FILE).is_file() else None)
    sources = _from_table(table) if table is not None else _from_folder(folder)
    if not sources:
        raise RequestError(
            f"'{folder}' holds no media: video files such as .mp4 or .mkv, or a {LABEL_FILE} naming them"
        )
    return sources


def _from_table(path: Path) -> list[Source]:
    if not path.is_file():
        raise RequestError(f"no label file at '{path}'")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"label file '{path}' is not a UTF-8 CSV table: {error}") from error
    if not rows:
        raise RequestError(f"label file '{path}' has no rows")
    columns = [column for column in rows[0] if column in ("video", *MODALITIES)]
    if not columns:
        known = ", ".join(("video", *MODALITIES))
        raise RequestError(f"label file '{path}' has no column that names files: one of {known} is needed")
    sources, absent = [], []
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RequestError(f"label file '{path}', line {line}: it has not as many fields as the header")
        files = {_kind(column): path.parent / row[column] for column in columns if row[column]}
        if not files:
            raise RequestError(f"label file '{path}', line {line}: it names no file ({', '.join(columns)} are empty)")
        absent += [str(file) for file in files.values() if not file.is_file()]
        texts = {column: value for column, value in row.items() if column not in columns}
        sources.append(Source(_key(next(iter(files.values()))), files, texts))
    if absent:
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise RequestError(f"label file '{path}' names absent files: '{absent[0]}'{others}")
    return _unique(sources)


def _from_folder(folder: Path) -> list[Source]:
    joined: dict[tuple[str, str], dict[str, Path]] = {}
    clashing: list[Source] = []
    for path in sorted(folder.rglob("*")):
        kind = next((kind for kind, suffixes in SUFFIXES.items() if path.suffix.lower() in suffixes), None)
        if kind is None or not path.is_file() or _is_hidden(path.relative_to(folder)):
            continue
        named = path.parent.name if path.parent.name in ("video", *MODALITIES) else None
        if kind == "signal" and named is None:
            continue
        place = path.parent.parent if named else path.parent
        files = joined.setdefault((str(place), path.stem), {})
        # A folder named for a camera may hold the sound recorded with it.
        held = "audio" if kind == "audio" else _kind(named or kind)
        if held in files:
            clashing.append(Source(_key(path), {held: path}))
        else:
            files[held] = path
    sources = [Source(_key(next(iter(files.values()))), files) for files in joined.values()]
    return _unique([*sources, *clashing])


def _kind(name: str) -> str:
    """What a column or folder of this name holds: `rgb` is what every video has."""
    return "video" if name == "rgb" else name


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _key(path: Path) -> str:
    """The stem as a shard key: a dot would end the key, a separator would make it a path."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in path.stem)


def _unique(sources: list[Source]) -> list[Source]:
    """Equal stems get their folder's name in front, then a number."""
    counts = Counter(source.key for source in sources)
    taken: set[str] = set()
    result = []
    for source in sources:
        key = source.key
        if counts[key] > 1:
            key = f"{_key(next(iter(source.files.values())).parent)}_{key}"
        base, number = key, 2
        while key in taken:
            key, number = f"{base}_{number}", number + 1
        taken.add(key)
        result.append(Source(key, source.files, source.labels))
    return result
