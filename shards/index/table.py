"""`index.json` of a shard folder: its clips, the place of each member, and how to read the stored numbers."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, RequestError, choice_error
from ..media.pack_settings import PackSettings, plain_settings
from ..modality import Modality, declare, modality
from .location import FolderReader, Location, Remote, locate
from .whole_file import whole_file

FORMAT_VERSION = 1
INDEX_NAME = "index.json"
SPOOL_NAME = ".packing"
# Longest key in bytes: keys become names of files and tar members.
KEY_BYTES = 120


# By key of a recording: kind, name, number of files, bytes and modification time of each of its files.
Stamps = dict[str, list[list[str | int]]]


@dataclass(frozen=True)
class Sample:
    """One packed clip.

    - `key`: unique in the index.
    - `shard`: file name of its tar.
    - `duration`: seconds.
    - `labels`: values of the label file's columns, as text.
    - `members`: suffix (`rgb.mp4`, `json`) -> (byte offset, bytes) in `shard`. A reader seeks to the modalities it
      needs.
    """

    key: str
    shard: str
    duration: float
    labels: dict[str, str]
    members: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Shard:
    """One tar.

    - `samples`: number of clips.
    - `bytes`, `sha256`: size and digest of the file.
    - `present`: number of clips that have a modality, by modality.
    - `silent`: number of clips whose sound track is silence.
    - `gapped`: number of clips whose sound has gaps, which are silent. The JSON of each clip lists them.
    """

    name: str
    samples: int
    bytes: int
    sha256: str
    present: dict[str, int]
    silent: int = 0
    gapped: int = 0


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the stored values per channel, in the modality's unit."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Index:
    """The content of `index.json`.

    - `settings`: how the media were packed.
    - `statistics`: by modality.
    - `shards`, `samples`: the tars and their clips.
    - `version`: of the format.
    - `folder`: where the index was read from. Not stored.
    - `source`: digest of the packed recordings.
    - `counts`: number of values per channel that the statistics were measured on, by modality. Older shards do not
      store it.
    - `stamps`: by recording. Older shards do not store them.
    """

    settings: PackSettings
    statistics: dict[str, Statistics]
    shards: tuple[Shard, ...]
    samples: tuple[Sample, ...]
    version: int = FORMAT_VERSION
    folder: Location = field(default=Path())
    source: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    stamps: Stamps = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The packed modalities that at least one of the selected clips has."""
        suffixes = {name: modality(name).suffix for name in self.settings.modalities}
        return tuple(name for name, suffix in suffixes.items() if any(suffix in s.members for s in self.samples))

    @property
    def packed(self) -> tuple[str, ...]:
        """The modalities that at least one clip of the shards has, selected or not."""
        return tuple(m for m in self.settings.modalities if any(s.present.get(m, 0) for s in self.shards))

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns, in the order of the label file."""
        return tuple(dict.fromkeys(column for sample in self.samples for column in sample.labels))

    @property
    def fingerprint(self) -> str:
        """A digest of the contents of all shards."""
        sums = "".join(shard.sha256 for shard in self.shards)
        return hashlib.sha256(sums.encode()).hexdigest()[:16]

    def column(self, name: str) -> list[str]:
        """Returns a label column's value per sample. Raises `RequestError` with the nearest name if missing."""
        if name not in self.columns:
            raise choice_error("label column", name, self.columns)
        return [sample.labels.get(name, "") for sample in self.samples]

    def where(self, **equal: str | Sequence[str]) -> "Index":
        """Keeps the samples whose label columns hold the given value, or one of several given values.

        Raises `RequestError`, with the nearest name, for a column or value that no sample has.
        """
        kept = list(self.samples)
        for column, given in equal.items():
            values = [given] if isinstance(given, str) else list(given)
            known = set(self.column(column))
            for value in values:
                if value not in known:
                    raise choice_error(f"value of column '{column}'", value, known - {""})
            kept = [sample for sample in kept if sample.labels.get(column, "") in values]
        return replace(self, samples=tuple(kept))

    def keep(self, keys: Iterable[str]) -> "Index":
        """Keeps the samples with these keys."""
        wanted = set(keys)
        return replace(self, samples=tuple(sample for sample in self.samples if sample.key in wanted))


def save_index(index: Index, folder: Path) -> None:
    """Writes `index.json` atomically: a reader sees either the old file or the complete new one."""
    content = asdict(index)
    del content["folder"]
    target = folder / INDEX_NAME
    with whole_file(target) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))


def load_index(place: Path | str | Remote | Sequence[str | Path]) -> Index:
    """Reads `index.json` of a shard folder, local or behind a URL, or of several folders as one (`join_indexes`).

    Raises `RequestError` for a missing folder or index and for another format version, and `DataError` for a damaged
    file.
    """
    if not isinstance(place, Path | str | Remote):
        from .joining import join_indexes

        return join_indexes([load_index(folder) for folder in place])
    folder = locate(place)
    path = f"{folder}/{INDEX_NAME}"
    if isinstance(folder, Path):
        _check_folder(folder)
    try:
        text = FolderReader(folder).read(INDEX_NAME).decode("utf-8")
    except (OSError, UnicodeError) as error:
        raise RequestError(f"cannot read '{path}' ({error}): give shards that `modalgate pack` wrote") from error
    try:
        content = json.loads(text)
        version = content["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' is damaged ({error}): pack the source again") from error
    if version != FORMAT_VERSION:
        raise RequestError(
            f"'{path}' has shard format {version}, this modalgate reads {FORMAT_VERSION}: pack the source again"
        )
    _declare(content)
    try:
        return Index(
            settings=plain_settings(content["settings"]),
            statistics={
                name: Statistics(tuple(entry["mean"]), tuple(entry["std"]))
                for name, entry in content["statistics"].items()
            },
            shards=tuple(Shard(**entry) for entry in content["shards"]),
            samples=tuple(
                Sample(
                    entry["key"],
                    entry["shard"],
                    entry["duration"],
                    entry["labels"],
                    {suffix: (offset, size) for suffix, (offset, size) in entry["members"].items()},
                )
                for entry in content["samples"]
            ),
            folder=folder,
            source=content.get("source", ""),
            counts=content.get("counts", {}),
            stamps=content.get("stamps", {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RequestError) as error:
        raise DataError(f"'{path}' is damaged ({error!r}): pack the source again") from error


def _declare(content: dict[str, Any]) -> None:
    """Makes the declared modalities known. Raises `RequestError` for one that is known as something else."""
    settings = content.get("settings")
    declared = settings.get("declared") if isinstance(settings, dict) else None
    for entry in declared if isinstance(declared, list) else ():
        # Anything else is damage, which is reported where the settings are read.
        with suppress(TypeError, AttributeError):
            declare(Modality(**entry))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise RequestError(f"no shard folder at '{folder}': give a folder that `modalgate pack` wrote")
    if not (folder / INDEX_NAME).is_file():
        why = "its packing is not finished: rerun the same `modalgate pack` command to resume"
        hint = why if (folder / SPOOL_NAME).is_dir() else "give a folder that `modalgate pack` wrote"
        raise RequestError(f"'{folder}' holds no {INDEX_NAME}: {hint}")


def clean_key(stem: str) -> str:
    """Returns the stem as a shard key. Characters other than letters, digits, `-` and `_` become `_`.

    A dot would end the key, and a separator would make it a path.

    >>> clean_key("front door.2")
    'front_door_2'
    """
    text = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)
    return text.encode()[:KEY_BYTES].decode(errors="ignore") or "_"
