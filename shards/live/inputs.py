"""Inputs of prediction and embedding: a folder of recordings, a list of files, one file, or packed shards."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..clip_spec import ClipSpec
from ..clips.application import Application
from ..clips.cut import slide_clip
from ..clips.piece import Piece
from ..errors import RequestError
from ..index.label_table import backslash_hint, read_text
from ..index.location import FolderReader
from ..index.table import INDEX_NAME, SPOOL_NAME, Index, Sample, load_index
from ..media.pack_settings import PackSettings
from ..packing.rejected import printable
from ..packing.sources import SUFFIXES, Source, find_sources, stamp
from .pieces import recording_pieces

LIST_SUFFIXES = (".txt", ".lst")


@dataclass(frozen=True)
class Item:
    """A recording or a packed clip.

    - `key`: path relative to the folder or list, or the clip's key.
    - `held`: the recording or clip.
    - `facts`: names, sizes and rates, or the digest of a shard.
    - `written`: modification times.
    - `problem`: why it cannot be read, if already known.
    """

    key: str
    held: Source | Sample
    facts: list[Any]
    written: list[int]
    problem: str = ""

    @property
    def stamp(self) -> list[Any]:
        """What changes with its content."""
        return [self.facts, self.written]


@dataclass(frozen=True)
class Material:
    """The inputs in a stable order.

    `index`: index of the shards if the items are packed clips.
    """

    items: list[Item]
    index: Index | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of the inputs. A copy elsewhere has the same one."""
        facts = [[item.key, item.facts] for item in self.items]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def cutter(
        self,
        spec: ClipSpec,
        modalities: tuple[str, ...],
        application: Application,
        hop: float | None,
        max_seconds: float = PackSettings.max_seconds,
    ) -> Callable[[Item], Iterator[Piece]]:
        """Returns a function that yields an item's pieces, in any process, and raises `unreadable.UNREADABLE`.

        `max_seconds`: longest recording.
        """
        if self.index is None:
            return partial(_cut_recording, spec, modalities, application, hop, max_seconds)
        reader = FolderReader(self.index.folder)
        return partial(_cut_sample, reader, self.index.settings, spec, modalities, application, hop)


def find_material(place: str, rates: dict[str, float] | None = None) -> Material:
    """Returns the recordings or clips of `place`.

    - A folder that `pack` wrote, or its URL: its clips.
    - Any other folder: its recordings as `pack` finds them, also those without a label.
    - A `.csv` file: the recordings in this label file of `pack`.
    - A `.txt` or `.lst` file: one path per line, relative to the file. Lines that start with `#` are skipped.
    - A media file: that file.

    `rates`: Hz of files that do not store it, by content, unless a label file gives it.

    Raises `RequestError` if there is no such input, and the errors of `load_index`.
    """
    path = Path(place)
    if "://" in place or (path / INDEX_NAME).is_file() or (path / SPOOL_NAME).is_dir():
        index = load_index(place)
        sums = {shard.name: shard.sha256 for shard in index.shards}
        return Material([Item(sample.key, sample, [sums[sample.shard]], []) for sample in index.samples], index)
    suffix = path.suffix.lower()
    if path.is_dir():
        root, sources = path, find_sources(path)
    elif not path.is_file():
        raise RequestError(
            f"nothing at '{place}': give a folder of recordings, a list of them (.txt or .csv), a media file, or "
            "packed shards"
        )
    elif suffix == ".csv":
        root, sources = path.parent, find_sources(path.parent, path, labelled_only=True)
    elif suffix in LIST_SUFFIXES:
        root, sources = path.parent, _from_list(path)
    elif suffix in SUFFIXES["video"] | SUFFIXES["audio"]:
        root, sources = path.parent, [_alone(path)]
    else:
        raise RequestError(f"'{place}' is neither a media file nor a list of media files (.txt or .csv)")
    items = []
    for source in sources:
        source = replace(source, rates=(rates or {}) | source.rates)
        key = printable(os.path.relpath(source.path, root)).replace(os.sep, "/")
        files = [] if source.problem else stamp(source)[0]
        facts, written = [[*(entry[:-1] for entry in files)], sorted(source.rates.items())], [e[-1] for e in files]
        items.append(Item(key, source, facts, written, source.problem))
    return Material(items)


def _from_list(path: Path) -> list[Source]:
    lines = [line.strip() for line in read_text(path, "list").splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise RequestError(f"list '{path}' names no file: give one path per line")
    sources, seen = [], Counter[Path]()
    for line in named:
        source = _alone(path.parent / line)
        seen[source.path] += 1
        if not source.path.exists():
            source = replace(source, problem=f"it does not exist{backslash_hint([line])}")
        elif seen[source.path] > 1:
            source = replace(source, problem=f"it is in '{path.name}' more than once")
        sources.append(source)
    if not any(source.path.exists() for source in sources):
        others = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        hint = backslash_hint(source.path.name for source in sources)
        raise RequestError(f"list '{path}' names files that do not exist: '{sources[0].path}'{others}{hint}")
    return sources


def _alone(path: Path) -> Source:
    held = "audio" if path.suffix.lower() in SUFFIXES["audio"] else "video"
    return Source(path.stem, {held: path})


def _cut_recording(
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    hop: float | None,
    max_seconds: float,
    item: Item,
) -> Iterator[Piece]:
    assert isinstance(item.held, Source)
    files, rates = item.held.files, item.held.rates
    return recording_pieces(files, spec, modalities, application, hop, rates, max_seconds=max_seconds)


def _cut_sample(
    reader: FolderReader,
    settings: PackSettings,
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    hop: float | None,
    item: Item,
) -> Iterator[Piece]:
    assert isinstance(item.held, Sample)
    return slide_clip(reader, settings, spec, modalities, application, hop, item.held)
