"""What there is to pack: the recordings of a folder, joined by a label file or by their names."""

import csv
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .arrays import ARRAY_SUFFIXES
from .errors import RequestError
from .modality import MODALITIES
from .pictures import IMAGE_SUFFIXES

SUFFIXES: dict[str, frozenset[str]] = {
    "video": frozenset(
        {".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp"}
    ),
    "audio": frozenset({".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus"}),
    "signal": frozenset({".csv"}) | ARRAY_SUFFIXES,
}
LABEL_FILE = "labels.csv"
RATE_ENDING = "_rate"
# Keys become names of files and of tar members.
KEY_BYTES = 120


@dataclass(frozen=True)
class Source:
    """One recording: `files` by what they hold (`video`, with its sound, or the name of a modality).

    A file may be a folder of frames. `rates`: Hz, of what does not tell its own. `problem`: why it cannot be packed,
    where its name or its place already tells.
    """

    key: str
    files: dict[str, Path]
    labels: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def path(self) -> Path:
        """The file that stands for it: the video, where it has one."""
        return self.files.get("video") or next(iter(self.files.values()))


def stamp(source: Source) -> list[Any]:
    """What changes when a file, the labels or the rates do: names, sizes in bytes, times of writing."""
    facts = []
    for kind, path in source.files.items():
        entries = [entry.stat() for entry in (sorted(path.iterdir()) if path.is_dir() else [path])]
        size, written = (
            sum(entry.st_size for entry in entries),
            max((entry.st_mtime_ns for entry in entries), default=0),
        )
        facts.append([kind, path.name, len(entries), size, written])
    return [facts, source.labels, source.rates]


def fingerprint(sources: list[Source]) -> str:
    """A digest of the recordings' keys, file names, labels and rates."""
    facts = [
        [item.key, {kind: file.name for kind, file in item.files.items()}, item.labels, item.rates]
        for item in sources
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def find_sources(folder: Path, labels: Path | None = None) -> list[Source]:
    """The recordings below `folder`, in a stable order.

    With a label file (`labels`, or `labels.csv` in the folder), its columns named `video` or after a modality are
    paths relative to it (of a file, or of a folder of frames), `video_rate` and the like are rates in Hz, all others
    are labels. Without one, every media file counts, and every folder of nothing but JPEG or PNG frames; those of one
    stem in folders named `video`, `audio`, `depth`, ... are one recording, and so are frames in `STEM/video`,
    `STEM/depth`, ...

    Files that cannot belong to a recording of their own have a `problem`: a stem or a row that is there twice, a
    file that is absent, a name that is no text. Raises `RequestError` for a missing or empty folder, one without
    media, and a label file that is malformed or of whose files none is there.
    """
    if not folder.is_dir():
        raise RequestError(f"no folder at '{folder}': give the folder of recordings to pack")
    table = labels or (folder / LABEL_FILE if (folder / LABEL_FILE).is_file() else None)
    sources = _from_table(table) if table is not None else _from_folder(folder)
    if not sources:
        raise RequestError(
            f"'{folder}' holds no media: video files such as .mp4 or .mkv, folders of .jpg or .png frames, "
            f"or a {LABEL_FILE} naming them"
        )
    return _unique(sources)


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
    timed = {f"{column}{RATE_ENDING}": _kind(column) for column in columns}
    sources, absent = [], []
    seen: dict[Path, int] = {}
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RequestError(f"label file '{path}', line {line}: it has not as many fields as the header")
        files = {_kind(column): path.parent / row[column] for column in columns if row[column]}
        if not files:
            raise RequestError(f"label file '{path}', line {line}: it names no file ({', '.join(columns)} are empty)")
        rates = {
            kind: _rate(row[column], f"label file '{path}', line {line}")
            for column, kind in timed.items()
            if row.get(column)
        }
        gone = next((file for file in files.values() if not file.exists()), None)
        twice = next((file for file in files.values() if file in seen), None)
        problem = ""
        if gone is not None:
            absent.append(gone)
            problem = f"'{gone}', named in line {line} of '{path.name}', is absent"
        elif twice is not None:
            problem = f"'{twice.name}' is in lines {seen[twice]} and {line} of '{path.name}'"
        for file in files.values():
            seen.setdefault(file, line)
        texts = {column: value for column, value in row.items() if column not in columns and column not in timed}
        sources.append(Source(_key(next(iter(files.values()))), files, texts, rates, problem))
    if len(absent) == len(sources):
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise RequestError(f"label file '{path}' names absent files: '{absent[0]}'{others}")
    return sources


def _rate(text: str, place: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise RequestError(f"{place}: the rate '{text}' is no number of Hz above 0")
    return rate


def _from_folder(folder: Path) -> list[Source]:
    joined: dict[tuple[str, str], dict[str, Path]] = {}
    sources: list[Source] = []
    for path, kind in _media(folder):
        kinds = ("video", *MODALITIES)
        if kind == "frames" and path.name in kinds:
            named, place, stem = path.name, path.parent.parent, path.parent.name
        else:
            named = path.parent.name if path.parent.name in kinds else None
            place = path.parent.parent if named else path.parent
            stem = path.name if kind == "frames" else path.stem
        if kind == "signal" and named is None:
            continue
        # A folder named for a camera may hold the sound recorded with it.
        held = "audio" if kind == "audio" else _kind(named or ("video" if kind == "frames" else kind))
        files = joined.setdefault((str(place), stem), {})
        if not _is_text(path):
            sources.append(Source(_key(path), {held: path}, problem="its name is not UTF-8 text: rename it"))
        elif held in files:
            problem = f"its stem is that of '{files[held].name}' beside it: rename one of them"
            sources.append(Source(_key(path), {held: path}, problem=problem))
        else:
            files[held] = path
    whole = [Source(clean_key(stem), files) for (_, stem), files in joined.items() if files]
    return [*whole, *sources]


def _media(folder: Path) -> Iterator[tuple[Path, str]]:
    """(path, `video`, `audio`, `signal` or `frames`) of all there is, but for hidden files and folders."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        names = sorted(name for name in names if not name.startswith("."))
        suffixes = {name: Path(name).suffix.lower() for name in names}
        kinds = {
            name: kind for name, suffix in suffixes.items() for kind, known in SUFFIXES.items() if suffix in known
        }
        yield from ((Path(place, name), kind) for name, kind in kinds.items())
        # Pictures beside films are thumbnails.
        if not set(kinds.values()) & {"video", "audio"} and any(s in IMAGE_SUFFIXES for s in suffixes.values()):
            yield Path(place), "frames"


def _kind(name: str) -> str:
    """What a column or folder of this name holds: `rgb` is what every video has."""
    return "video" if name == "rgb" else name


def _is_text(path: Path) -> bool:
    """Whether the name can be written down: on disk it is bytes, of any kind."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(path: Path) -> str:
    return clean_key(path.name if path.is_dir() else path.stem)


def clean_key(stem: str) -> str:
    """The stem as a shard key: a dot would end the key, a separator would make it a path."""
    text = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)
    return text.encode()[:KEY_BYTES].decode(errors="ignore") or "_"


def _unique(sources: list[Source]) -> list[Source]:
    """Equal stems get their folder's name in front, then a number; so do those that a piece of another would have."""
    counts = Counter(source.key for source in sources if not source.problem)
    taken: set[str] = set()
    result = []
    for source in sources:
        key = source.key
        if counts[key] > 1:
            key = f"{clean_key(source.path.parent.name)}_{key}"
        base, number = key, 2
        while key in taken or (re.sub(r"-\d+$", "", key) != key and re.sub(r"-\d+$", "", key) in counts):
            key, number = f"{base}_{number}", number + 1
        taken.add(key)
        result.append(replace(source, key=key))
    return result
