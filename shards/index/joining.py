"""Join several shard folders into one index: the settings that must agree, and keys, groups and statistics."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..media.pack_settings import difference
from ..modality import Modality, declared_among, modality
from .location import Joined, Remote
from .table import Index, Sample, Shard, Statistics, clean_key

# Settings that determine how stored numbers are read, and the modalities they apply to.
_READ_BY: dict[str, Callable[[Modality], bool]] = {
    "size": lambda entry: entry.kind == "video",
    "fps": lambda entry: entry.kind == "video",
    "region": lambda entry: entry.kind == "video",
    "flow_bound": lambda entry: bool(entry.flow_of),
    "sample_rate": lambda entry: entry.kind == "audio",
}


def join_indexes(indexes: Sequence[Index]) -> Index:
    """Returns one index with the clips of all `indexes`, one folder after the other.

    - A modality that a folder lacks is absent in its clips. A label column that it lacks is empty.
    - A key that occurs in several folders gets its folder's name in front. A shard is named `FOLDER/SHARD`.
    - If one folder has a column `group`, every clip of a folder without that column is its own group.
    - Statistics are weighted by the number of values they were measured on. Older shards do not store that number; a
      modality of such shards is weighted by the seconds of its clips.

    Raises `RequestError` for no folder, for a folder given twice, and for folders packed with a different size, frame
    rate, region, flow bound or sample rate of a modality that both have.
    """
    if not indexes:
        raise RequestError("no shard folder: give at least one that `modalgate pack` wrote")
    if len(indexes) == 1:
        return indexes[0]
    names = _names([_one(index) for index in indexes])
    counts = Counter(sample.key for index in indexes for sample in index.samples)
    grouped = any("group" in index.columns for index in indexes)
    taken = {key for key, count in counts.items() if count == 1}
    samples: list[Sample] = []
    shards: list[Shard] = []
    for name, index in zip(names, indexes, strict=True):
        shards += (replace(shard, name=f"{name}/{shard.name}") for shard in index.shards)
        alone = grouped and "group" not in index.columns
        for sample in index.samples:
            key = sample.key if counts[sample.key] == 1 else _free(f"{name}_{sample.key}", taken)
            labels = sample.labels | ({"group": key} if alone else {})
            samples.append(replace(sample, key=key, shard=f"{name}/{sample.shard}", labels=labels))
    known = all(name in index.counts for index in indexes for name in index.statistics)
    held = dict.fromkeys(name for index in indexes for name in index.statistics)
    return Index(
        _settings(indexes),
        {name: _pooled(name, [index for index in indexes if name in index.statistics]) for name in held},
        tuple(shards),
        tuple(samples),
        folder=Joined(tuple((name, _one(index)) for name, index in zip(names, indexes, strict=True))),
        counts={name: sum(index.counts.get(name, 0) for index in indexes) for name in held} if known else {},
    )


def _one(index: Index) -> Path | Remote:
    assert not isinstance(index.folder, Joined)
    return index.folder


def _names(folders: Sequence[Path | Remote]) -> list[str]:
    """Returns a name for each folder: its own, with its parent's in front if several have the same."""
    paths = [folder.resolve() if isinstance(folder, Path) else folder.url for folder in folders]
    twice = next((folder for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1), None)
    if twice is not None:
        raise RequestError(f"shard folder '{twice}' is given twice: give each once")
    parts = [path.parts if isinstance(path, Path) else tuple(path.split("/")) for path in paths]
    plain = [clean_key(part[-1]) for part in parts]
    longer = [clean_key("_".join(part[-2:])) for part in parts]
    taken: set[str] = set()
    return [_free(name if plain.count(name) == 1 else more, taken) for name, more in zip(plain, longer, strict=True)]


def _free(name: str, taken: set[str]) -> str:
    """Returns `name`, with a number appended if it is taken, and marks it as taken."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free)
    return free


def _settings(indexes: Sequence[Index]) -> Any:
    """Returns the common settings, with all modalities of all folders."""
    agreed: dict[str, Any] = {}
    for setting, concerns in _READ_BY.items():
        concerned = [index for index in indexes if any(concerns(modality(name)) for name in index.modalities)]
        for index in concerned:
            value, first = getattr(index.settings, setting), getattr(concerned[0].settings, setting)
            if value != first:
                raise RequestError(
                    f"'{concerned[0].folder}' and '{index.folder}' are packed with different settings: "
                    f"{_differences(concerned[0], index)}: pack one of them again with the other's"
                )
            agreed[setting] = value
    names = dict.fromkeys(name for index in indexes for name in index.settings.modalities)
    return replace(indexes[0].settings, **agreed, modalities=tuple(names), declared=declared_among(names))


def _differences(first: Index, other: Index) -> str:
    both = [{name: getattr(index.settings, name) for name in _READ_BY} for index in (first, other)]
    for setting, concerns in _READ_BY.items():
        if not all(any(concerns(modality(name)) for name in index.modalities) for index in (first, other)):
            both = [{name: value for name, value in held.items() if name != setting} for held in both]
    return difference(*both)


def _pooled(name: str, indexes: Sequence[Index]) -> Statistics:
    if all(index.counts.get(name) for index in indexes):
        weights = np.array([float(index.counts[name]) for index in indexes])
    else:
        suffix = modality(name).suffix
        weights = np.array([sum(s.duration for s in index.samples if suffix in s.members) for index in indexes])
    weights = weights / weights.sum()
    means = np.array([index.statistics[name].mean for index in indexes])
    squares = np.array([index.statistics[name].std for index in indexes]) ** 2 + means**2
    mean = weights @ means
    variance = np.maximum(weights @ squares - mean**2, 0)
    return Statistics(tuple(mean.tolist()), tuple(np.sqrt(variance).tolist()))
