"""What there is to pack: the recordings of a folder, those a label file names and those it does not."""

import csv
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


@dataclass(frozen=True)
class Recordings:
    """What a folder holds: `sources`, the `named` first ones by its label file; `left_out`: media files that belong
    to none of them."""

    sources: list[Source]
    named: int
    left_out: int

    @property
    def labelled(self) -> int:
        """The recordings that have a label in at least one column."""
        return sum(any(value.strip() for value in source.labels.values()) for source in self.sources)


def find_sources(folder: Path, labels: Path | None = None, labelled_only: bool = False) -> list[Source]:
    """The recordings that `find_recordings` finds; those of a label file alone without a look at the folder."""
    table = table_of(folder, labels)
    if labelled_only and table is not None:
        return _unique(_from_table(table), [])
    return find_recordings(folder, labels, labelled_only).sources


def table_of(folder: Path, labels: Path | None = None) -> Path | None:
    """The label file: the one that is given, or the folder's own."""
    return labels or (folder / LABEL_FILE if (folder / LABEL_FILE).is_file() else None)


def find_recordings(folder: Path, labels: Path | None = None, labelled_only: bool = False) -> Recordings:
    """The recordings below `folder`, in a stable order.

    Without a label file every media file counts, and every folder of nothing but JPEG or PNG frames; those of one
    stem in folders named `video`, `audio`, `depth`, ... are one recording, and so are frames in `STEM/video`,
    `STEM/depth`, ...

    With a label file (`labels`, or `labels.csv` in the folder), its columns named `video` or after a modality are
    paths relative to it (of a file, or of a folder of frames), `video_rate` and the like are rates in Hz, all others
    are labels. The recordings of the folder that it does not name follow, with empty labels, unless `labelled_only`:
    files of the kinds it has columns for, joined by their stems as above, with a video where it has a column `video`.
    Frames count where it names folders of frames. A file beside a named one of the same stem belongs to that
    recording, and is left out.

    Files that cannot belong to a recording of their own have a `problem`: a stem or a row that is there twice, a
    file that is absent, a name that is no text. Raises `RequestError` for a missing or empty folder, one without
    media, and a label file that is malformed or of whose files none is there.
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
            f"'{folder}' holds no media: video files such as .mp4 or .mkv, folders of .jpg or .png frames, "
            f"or a {LABEL_FILE} naming them"
        )
    return Recordings(_unique(named, others), len(named), left_out)


class _Table:
    """What the recordings that a label file names say of the files it does not name."""

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
        # A rate that differs from row to row says nothing of another file.
        self.rates = {kind: held.pop() for kind, held in rates.items() if len(held) == 1}
        self._alike: dict[tuple[str, str], set[str]] = {}
        homes: dict[str, set[str]] = {}
        # What follows in `a1_depth.mat` and `a1_inertial.csv` after the part that both share.
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
        # Each kind in one folder, which no other kind shares.
        apart = [next(iter(held)) for held in homes.values() if len(held) == 1]
        several = len(homes) > 1 and len(set(apart)) == len(homes)
        self._homes = {next(iter(held)): kind for kind, held in homes.items()} if several else {}
        self.root = Path(os.path.commonpath(list(self._homes))) if self._homes else None

    def home_of(self, folder: Path) -> str | None:
        """The kind of all files in `folder`, where each kind has a folder of its own."""
        return self._homes.get(os.path.realpath(folder))

    def kind_of(self, path: Path) -> str | None:
        """The kind of the named files that lie in the same folder and end alike; none where they differ."""
        kinds = self._alike.get(_likeness(path), set())
        return next(iter(kinds)) if len(kinds) == 1 else None

    def recording_of(self, stem: str, kind: str) -> str:
        """The stem of the recording: less what only files of this kind have at its end."""
        return stem.removesuffix(self._tails.get(kind, "")).rstrip("-_. ") or stem

    def takes(self, files: dict[str, Path]) -> bool:
        """Whether these files make a recording of the kind that the table lists."""
        return bool(files) and ("video" in files or "video" not in self.kinds)


def _likeness(path: Path) -> tuple[str, str]:
    return os.path.realpath(path.parent), path.suffix.lower()


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


def _from_folder(folder: Path, table: _Table | None = None) -> tuple[list[Source], int]:
    """The recordings that `table` does not name, and how many media files belong to none."""
    joined: dict[tuple[str, str], dict[str, Path]] = {}
    problems: list[tuple[tuple[str, str], Source]] = []
    known: set[tuple[str, str]] = set()
    labels, rates = ({}, {}) if table is None else (table.labels, table.rates)
    left_out = 0
    for path, kind in _media(folder):
        kinds = ("video", *MODALITIES)
        home = path.parent.name if path.parent.name in kinds else table and table.home_of(path.parent)
        if path.suffix.lower() == ".csv" and (path.name == LABEL_FILE or not _is_signal(home)):
            # A table beside pictures or sound is about them: it is none of them.
            home = None
        if kind == "frames" and path.name in kinds:
            named, place, stem = path.name, path.parent.parent, path.parent.name
        else:
            named = home or (table and table.kind_of(path))
            place = path.parent.parent if home else path.parent
            if home and table is not None and table.root is not None and table.home_of(path.parent):
                # Films may lie beside the folders of what was recorded with them.
                place = table.root
            stem = path.name if kind == "frames" else path.stem
        # A folder named for a camera may hold the sound recorded with it.
        held = "audio" if kind == "audio" else _kind(named or ("video" if kind == "frames" else kind))
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
            problem = f"its stem is that of '{files[held].name}' beside it: rename one of them"
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


def _is_signal(name: str | None) -> bool:
    return name in MODALITIES and MODALITIES[name].kind == "signal"


def _is_text(path: Path) -> bool:
    """Whether the name can be written down: on disk it is bytes, of any kind."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(path: Path) -> str:
    return clean_key(path.name if path.is_dir() else path.stem)


def _unique(named: list[Source], others: list[Source]) -> list[Source]:
    """Equal stems get their folder's name in front, then a number; so do those that a piece of another would have.

    The keys of `named` do not depend on `others`.
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
        # What is named next must not have such a key as its own, or its pieces would be called like these.
        cut = {_whole(key) for key in taken} - taken
    return result


def _whole(key: str) -> str:
    """The key of the recording that a piece of this key would be cut from."""
    return re.sub(r"-\d+$", "", key)
