"""`index.json` beside the shards: what is in them, where each member lies, and how the numbers are to be read."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import DataError, RequestError, choice_error
from ..media.pack_settings import PackSettings, plain_settings
from .location import FolderReader, Location, Remote, locate
from .whole_file import whole_file

FORMAT_VERSION = 1
INDEX_NAME = "index.json"
SPOOL_NAME = ".packing"
# Keys become names of files and of tar members.
KEY_BYTES = 120


@dataclass(frozen=True)
class Sample:
    """One packed clip.

    `members`: suffix (`rgb.mp4`, `json`) -> (byte offset, bytes) inside `shard`: a reader seeks to just the
    modalities it wants. `labels`: the columns of the label file, as text. `duration` in seconds.
    """

    key: str
    shard: str
    duration: float
    labels: dict[str, str]
    members: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Shard:
    """One tar: `present` counts, per modality, the samples that have it; `silent`, those whose track is silence."""

    name: str
    samples: int
    bytes: int
    sha256: str
    present: dict[str, int]
    silent: int = 0


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per channel of the stored values in the modality's unit."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Index:
    """Everything `index.json` says.

    `source`: what was packed, as a digest. `folder`: where it was read from, which is not stored. `counts`: by
    modality, how many values of a channel its statistics were measured on; older shards do not say.
    """

    settings: PackSettings
    statistics: dict[str, Statistics]
    shards: tuple[Shard, ...]
    samples: tuple[Sample, ...]
    version: int = FORMAT_VERSION
    folder: Location = field(default=Path())
    source: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The packed modalities that at least one sample has."""
        return tuple(m for m in self.settings.modalities if any(s.present.get(m, 0) for s in self.shards))

    @property
    def columns(self) -> tuple[str, ...]:
        """Label columns, in the order of the label file."""
        return tuple(dict.fromkeys(column for sample in self.samples for column in sample.labels))

    @property
    def fingerprint(self) -> str:
        """A digest of all shards' contents."""
        sums = "".join(shard.sha256 for shard in self.shards)
        return hashlib.sha256(sums.encode()).hexdigest()[:16]

    def column(self, name: str) -> list[str]:
        """The values of one label column, by sample; `RequestError` names the nearest column."""
        if name not in self.columns:
            raise choice_error("label column", name, self.columns)
        return [sample.labels.get(name, "") for sample in self.samples]

    def where(self, **equal: str | Sequence[str]) -> "Index":
        """The samples whose label columns hold just these values, or one of several.

        Raises `RequestError` that names the nearest for a column or a value that no sample has.
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
        """The samples with these keys."""
        wanted = set(keys)
        return replace(self, samples=tuple(sample for sample in self.samples if sample.key in wanted))


def save_index(index: Index, folder: Path) -> None:
    """Writes `index.json` atomically: a reader sees the old file or the whole new one."""
    content = asdict(index)
    del content["folder"]
    target = folder / INDEX_NAME
    with whole_file(target) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))


def load_index(place: Path | str | Remote | Sequence[str | Path]) -> Index:
    """Reads `index.json` of a shard folder, local or behind a URL, or of several as one (see `join_indexes`).

    Raises `RequestError` where there is no such folder, no index, or an index of another format version, and
    `DataError` where the file is damaged.
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
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged ({error!r}): pack the source again") from error


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise RequestError(f"no shard folder at '{folder}': give a folder that `modalgate pack` wrote")
    if not (folder / INDEX_NAME).is_file():
        why = "its packing is not finished: run the same `modalgate pack` again"
        hint = why if (folder / SPOOL_NAME).is_dir() else "give a folder that `modalgate pack` wrote"
        raise RequestError(f"'{folder}' holds no {INDEX_NAME}: {hint}")


def clean_key(stem: str) -> str:
    """The stem as a shard key: a dot would end the key, a separator would make it a path."""
    text = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)
    return text.encode()[:KEY_BYTES].decode(errors="ignore") or "_"
