"""Summarise a shard folder in numbers: modalities, shards, label columns."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..modality import modality
from .table import Index


@dataclass(frozen=True)
class ModalitySummary:
    """One modality.

    - `clips`: number of clips that have it.
    - `rate`: frames or samples per second.
    - `bytes`: size of all its members.
    """

    name: str
    clips: int
    rate: float | None
    bytes: int


@dataclass(frozen=True)
class ShardSummary:
    """One shard.

    - `clips`, `bytes`: number of clips and size.
    - `present`: clips by modality.
    - `entropy`: of the label column over its clips, in bits. None without labels.
    """

    name: str
    clips: int
    bytes: int
    present: dict[str, int]
    entropy: float | None


@dataclass(frozen=True)
class Summary:
    """One shard folder, or several joined.

    - `clips`, `hours`, `bytes`: number of clips, duration and size.
    - `silent`: clips whose sound track is silence, and so absent.
    - `gapped`: clips whose sound has gaps.
    - `modalities`, `shards`: a summary of each.
    - `labels`: clips by value by column, most frequent first. Clips without a value are not counted.
    - `label_column`: the column that `entropy` refers to. None without labels.
    - `entropy`: of that column over all clips that have a value, in bits. Shards with a much lower entropy were not
      shuffled.
    """

    clips: int
    hours: float
    bytes: int
    silent: int
    gapped: int
    modalities: list[ModalitySummary]
    shards: list[ShardSummary]
    labels: dict[str, dict[str, int]]
    label_column: str | None
    entropy: float | None


def summarise(index: Index) -> Summary:
    """Summarises an index. The entropy is that of column `label`, or else of the first column."""
    columns = index.columns
    column = "label" if "label" in columns else next(iter(columns), None)
    settings = index.settings
    rates = {"video": settings.fps, "audio": float(settings.sample_rate)}
    modalities = []
    for name in settings.modalities:
        entry = modality(name)
        sizes = [sample.members[entry.suffix][1] for sample in index.samples if entry.suffix in sample.members]
        modalities.append(ModalitySummary(name, len(sizes), rates.get(entry.kind, entry.rate), sum(sizes)))
    values: dict[str, list[str]] = {shard.name: [] for shard in index.shards}
    for sample in index.samples:
        if value := sample.labels.get(column or "", ""):
            values.setdefault(sample.shard, []).append(value)
    shards = [
        ShardSummary(
            shard.name, shard.samples, shard.bytes, shard.present, entropy(values[shard.name]) if column else None
        )
        for shard in index.shards
    ]
    labels = {name: dict(Counter(filter(None, index.column(name))).most_common()) for name in columns}
    return Summary(
        clips=len(index.samples),
        hours=sum(sample.duration for sample in index.samples) / 3600,
        bytes=sum(shard.bytes for shard in index.shards),
        silent=sum(shard.silent for shard in index.shards),
        gapped=sum(shard.gapped for shard in index.shards),
        modalities=modalities,
        shards=shards,
        labels=labels,
        label_column=column,
        entropy=entropy(filter(None, index.column(column))) if column else None,
    )


def entropy(values: Iterable[str]) -> float:
    """Returns the Shannon entropy of the values' frequencies in bits; 0 for no values.

    >>> entropy(["calm", "fight", "calm", "fight"])
    1.0
    """
    counts = np.array(list(Counter(values).values()), dtype=np.float64)
    if not len(counts):
        return 0.0
    shares = counts / counts.sum()
    return abs(float(-(shares * np.log2(shares)).sum()))
