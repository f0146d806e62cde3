"""Find the recordings to pack: those that a label file names, and the others in the folder."""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..index.label_table import backslash_hint, read_table
from ..index.labels import LABEL, NO_LABELS
from ..index.table import clean_key
from ..media.arrays import ARRAY_SUFFIXES
from ..media.pictures import IMAGE_SUFFIXES
from ..modality import MODALITIES

SUFFIXES: dict[str, frozenset[str]] = {
    "video": frozenset(
        {".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp"}
    ),
    "audio": frozenset({".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus"}),
    "signal": frozenset({".csv"}) | ARRAY_SUFFIXES,
}
LABEL_FILE = "labels.csv"
RATE_ENDING = "_rate"


@dataclass(frozen=True)
class Source:
    """One recording.

    - `key`: becomes the key of its clip, or the beginning of its clips' keys.
    - `files`: path by content: `video` (with its sound) or a modality. A path may be a folder of frames.
    - `labels`: label values by column.
    - `rates`: Hz of files that do not store it, by content.
    - `problem`: why it cannot be packed, if its name or place already shows that.
    """

    key: str
    files: dict[str, Path]
    labels: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def path(self) -> Path:
        """The file that represents the recording: its video if it has one."""
        return self.files.get("video") or next(iter(self.files.values()))


def stamp(source: Source) -> list[Any]:
    """Returns what changes with the files, labels or rates: names, sizes in bytes, modification times."""
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
    """Returns a digest of the recordings' keys, file names, labels and rates."""
    facts = [
        [item.key, {kind: file.name for kind, file in item.files.items()}, item.labels, item.rates]
        for item in sources
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Recordings:
    """What a folder holds.

    - `sources`: the recordings.
    - `named`: how many of them, at the beginning, are named by the label file.
    - `left_out`: number of media files that belong to no recording.
    """

    sources: list[Source]
    named: int
    left_out: int

    @property
    def labelled(self) -> int:
        """The number of recordings with a label in at least one column; `split` and `group` are not labels."""
        return sum(
            any(value.strip() for name, value in source.labels.items() if name not in NO_LABELS)
            for source in self.sources
        )


def find_sources(folder: Path, labels: Path | None = None, labelled_only: bool = False) -> list[Source]:
    """Returns the sources of `find_recordings`. With a label file and `labelled_only`, does not scan the folder."""
    table = table_of(folder, labels)
    if labelled_only and table is not None:
        return _unique(_from_table(table), [])
    return find_recordings(folder, labels, labelled_only).sources


def table_of(folder: Path, labels: Path | None = None) -> Path | None:
    """Returns the label file: the given one, or else the folder's own if it exists."""
    return labels or (folder / LABEL_FILE if (folder / LABEL_FILE).is_file() else None)


def find_recordings(folder: Path, labels: Path | None = None, labelled_only: bool = False) -> Recordings:
    """Returns the recordings in `folder` and its subfolders, in a stable order.

    Without a label file, every media file counts, and every folder that holds only JPEG or PNG frames. Files with the
    same stem in folders named `video`, `audio`, `depth`, ... form one recording; so do frames in `STEM/video`,
    `STEM/depth`, ...

    With a label file (`labels`, or `labels.csv` in the folder):

    - Columns named `video` or after a modality are paths relative to it, of a file or a folder of frames.
    - Columns such as `video_rate` are rates in Hz. All other columns are labels.
    - Unless `labelled_only`, the folder's other recordings follow, with empty labels. They are made of the kinds of
      files that the table has columns for, joined by stem as above, and must have a video if the table has a column
      `video`. Frames count if the table names folders of frames.
    - A file next to a named one with the same stem belongs to that recording and is skipped.

    A recording has a `problem` for a stem or row that occurs twice, an absent file, and a name that is not text.

    Raises `RequestError` for a missing folder, one without media, a malformed label file, and a label file whose
    files are all absent.
    """
    if not folder.is_dir():
        raise RequestError(f"no folder at '{folder}': give the folder of recordings to pack")
    table = table_of(folder, labels)
    if table is None:
        named, (others, left_out) = [], _from_folder(folder)
    else:
        named = _from_table(table)
        others, left_out = _from_folder(folder, _Table(named))
    if labelled_only and table is not None:
        left_out += sum(len(source.files) for source in others)
        others = []
    if not named and not others:
        raise RequestError(
            f"'{folder}' holds no media: it needs video files such as .mp4 or .mkv, folders of .jpg or .png frames, "
            f"or a {LABEL_FILE} that names them"
        )
    return Recordings(_unique(named, others), len(named), left_out)


class _Table:
    """What the recordings of a label file reveal about the files that it does not name."""

    def __init__(self, named: Sequence[Source]) -> None:
        files = [(kind, path) for source in named for kind, path in source.files.items()]
        self.paths = {os.path.realpath(path) for _, path in files}
        self.kinds = {kind for kind, _ in files}
        self.frames = any(path.is_dir() for _, path in files)
        self.labels = {column: "" for source in named for column in source.labels}
        rates: dict[str, set[float]] = {}
        for source in named:
            for kind, rate in source.rates.items():
                rates.setdefault(kind, set()).add(rate)
        # A rate that differs between rows cannot be used for other files.
        self.rates = {kind: held.pop() for kind, held in rates.items() if len(held) == 1}
        self._alike: dict[tuple[str, str], set[str]] = {}
        homes: dict[str, set[str]] = {}
        # What each kind adds after the shared part of the stems: `a1_depth.mat` and `a1_inertial.csv` add `_depth`
        # and `_inertial`.
        tails: dict[str, set[str]] = {}
        for source in named:
            stems = {kind: path.name if path.is_dir() else path.stem for kind, path in source.files.items()}
            columns = zip(*stems.values(), strict=False)
            shared = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, columns))
            for kind, stem in stems.items():
                tails.setdefault(kind, set()).add(stem[shared:] if len(stems) > 1 else "")
        self._tails = {kind: held.pop() for kind, held in tails.items() if len(held) == 1}
        for kind, path in files:
            self._alike.setdefault(_likeness(path), set()).add(kind)
            homes.setdefault(kind, set()).add(os.path.realpath(path.parent))
        # Only if each kind is in one folder that no other kind uses.
        apart = [next(iter(held)) for held in homes.values() if len(held) == 1]
        several = len(homes) > 1 and len(set(apart)) == len(homes)
        self._homes = {next(iter(held)): kind for kind, held in homes.items()} if several else {}
        self.root = Path(os.path.commonpath(list(self._homes))) if self._homes else None

    def home_of(self, folder: Path) -> str | None:
        """Returns the kind of all files in `folder`, if each kind has its own folder."""
        return self._homes.get(os.path.realpath(folder))

    def kind_of(self, path: Path) -> str | None:
        """Returns the kind of the named files in the same folder with the same suffix; None if they differ."""
        kinds = self._alike.get(_likeness(path), set())
        return next(iter(kinds)) if len(kinds) == 1 else None

    def recording_of(self, stem: str, kind: str) -> str:
        """Returns the stem of the recording: the stem without the ending that only files of this kind have."""
        return stem.removesuffix(self._tails.get(kind, "")).rstrip("-_. ") or stem

    def takes(self, files: dict[str, Path]) -> bool:
        """Returns whether these files form a recording like those in the table."""
        return bool(files) and ("video" in files or "video" not in self.kinds)


def _likeness(path: Path) -> tuple[str, str]:
    return os.path.realpath(path.parent), path.suffix.lower()


def _from_table(path: Path) -> list[Source]:
    if not path.is_file():
        raise RequestError(f"no label file at '{path}'")
    kinds = ("video", *MODALITIES)
    rows = read_table(path, "label file", [*kinds, *(f"{kind}{RATE_ENDING}" for kind in kinds), LABEL, *NO_LABELS])
    if not rows:
        raise RequestError(f"label file '{path}' has no rows")
    columns = [column for column in rows[0][1] if column in kinds]
    if not columns:
        raise RequestError(
            f"label file '{path}' has no column that names files (its columns are {', '.join(rows[0][1])}): one of "
            f"{', '.join(kinds)} is needed"
        )
    timed = {f"{column}{RATE_ENDING}": _kind(column) for column in columns}
    sources, absent = [], []
    seen: dict[Path, int] = {}
    for line, row in rows:
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
            hint = backslash_hint([gone.name])
            problem = f"'{gone}', named in line {line} of '{path.name}', does not exist{hint}"
        elif twice is not None:
            problem = f"'{twice.name}' is in lines {seen[twice]} and {line} of '{path.name}'"
        for file in files.values():
            seen.setdefault(file, line)
        texts = {column: value for column, value in row.items() if column not in columns and column not in timed}
        sources.append(Source(_key(next(iter(files.values()))), files, texts, rates, problem))
    if len(absent) == len(sources):
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        hint = backslash_hint(file.name for file in absent)
        raise RequestError(f"label file '{path}' names files that do not exist: '{absent[0]}'{others}{hint}")
    return sources


def _rate(text: str, place: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise RequestError(f"{place}: rate '{text}' is not a number of Hz above 0")
    return rate


def _from_folder(folder: Path, table: _Table | None = None) -> tuple[list[Source], int]:
    """Returns the recordings that `table` does not name, and the number of media files that belong to none."""
    joined: dict[tuple[str, str], dict[str, Path]] = {}
    problems: list[tuple[tuple[str, str], Source]] = []
    known: set[tuple[str, str]] = set()
    labels, rates = ({}, {}) if table is None else (table.labels, table.rates)
    left_out = 0
    for path, kind in _media(folder):
        kinds = ("video", *MODALITIES)
        home = path.parent.name if path.parent.name in kinds else table and table.home_of(path.parent)
        if path.suffix.lower() == ".csv" and (path.name == LABEL_FILE or not _is_signal(home)):
            # A table in a folder of pictures or sound describes them and is not a stream.
            home = None
        if kind == "frames" and path.name in kinds:
            named, place, stem = path.name, path.parent.parent, path.parent.name
        else:
            named = home or (table and table.kind_of(path))
            place = path.parent.parent if home else path.parent
            if home and table is not None and table.root is not None and table.home_of(path.parent):
                # Videos may lie next to the folders of the streams recorded with them.
                place = table.root
            stem = path.name if kind == "frames" else path.stem
        # A folder named after a camera may hold the sound recorded with it.
        if kind == "audio":
            held = named if named in MODALITIES and MODALITIES[named].kind == "audio" else "audio"
        else:
            held = _kind(named or ("video" if kind == "frames" else kind))
        stem = stem if table is None else table.recording_of(stem, held)
        if table is not None and os.path.realpath(path) in table.paths:
            known.add((os.path.realpath(place), stem))
            continue
        if kind == "signal" and named is None:
            continue
        if table is not None and (held not in table.kinds or (kind == "frames" and not table.frames)):
            left_out += 1
            continue
        place = os.path.realpath(place), stem
        files = joined.setdefault(place, {})
        problem = ""
        if not _is_text(path):
            problem = "its name is not UTF-8 text: rename it"
        elif held in files:
            problem = f"it has the same stem as '{files[held].name}': rename one of them"
        if problem:
            problems.append((place, Source(_key(path), {held: path}, labels, problem=problem)))
        else:
            files[held] = path
    sources: list[Source] = []
    for place, files in joined.items():
        if place in known or (table is not None and not table.takes(files)):
            left_out += len(files)
        elif files:
            own = {kind: rate for kind, rate in rates.items() if kind in files}
            sources.append(Source(clean_key(place[1]), files, labels, own))
    left_out += sum(place in known for place, _ in problems)
    return [*sources, *(source for place, source in problems if place not in known)], left_out


def _media(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields (path, `video`, `audio`, `signal` or `frames`) for everything but hidden files and folders."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        names = sorted(name for name in names if not name.startswith("."))
        suffixes = {name: Path(name).suffix.lower() for name in names}
        kinds = {
            name: kind for name, suffix in suffixes.items() for kind, known in SUFFIXES.items() if suffix in known
        }
        yield from ((Path(place, name), kind) for name, kind in kinds.items())
        # Pictures next to videos are thumbnails.
        if not set(kinds.values()) & {"video", "audio"} and any(s in IMAGE_SUFFIXES for s in suffixes.values()):
            yield Path(place), "frames"


def _kind(name: str) -> str:
    """Returns what a column or folder of this name holds. `rgb` means the video."""
    return "video" if name == "rgb" else name


def _is_signal(name: str | None) -> bool:
    return name in MODALITIES and MODALITIES[name].kind == "signal"


def _is_text(path: Path) -> bool:
    """Returns whether the name is valid text: on disk it may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(path: Path) -> str:
    return clean_key(path.name if path.is_dir() else path.stem)


def _unique(named: list[Source], others: list[Source]) -> list[Source]:
    """Makes keys unique: equal stems get their folder's name in front, then a number.

    A key that a cut piece of another recording would get is changed as well. The keys of `named` do not depend on
    `others`.
    """
    counts = Counter[str]()
    taken: set[str] = set()
    cut: set[str] = set()
    result = []
    for sources in (named, others):
        counts += Counter(source.key for source in sources if not source.problem)
        for source in sources:
            key = source.key
            if counts[key] > 1:
                key = f"{clean_key(source.path.parent.name)}_{key}"
            base, number = key, 2
            while key in taken or key in cut or (_whole(key) != key and _whole(key) in counts):
                key, number = f"{base}_{number}", number + 1
            taken.add(key)
            result.append(replace(source, key=key))
        # Keys that come later must differ from these, or pieces of their recordings would get equal keys.
        cut = {_whole(key) for key in taken} - taken
    return result


def _whole(key: str) -> str:
    """Returns the key of the recording that a piece with this key would come from."""
    return re.sub(r"-\d+$", "", key)
