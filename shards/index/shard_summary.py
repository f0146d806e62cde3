"""What a shard folder holds, in figures: modalities, shards, label columns."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..modality import modality
from .table import Index


@dataclass(frozen=True)
class ModalitySummary:
    """`clips` that have it; `rate`: frames or samples per second; `bytes` of all its members."""

    name: str
    clips: int
    rate: float | None
    bytes: int


@dataclass(frozen=True)
class ShardSummary:
    """`present`: clips by modality. `entropy`: of the label column over the shard's clips, in bits; none where there
    are no labels."""

    name: str
    clips: int
    bytes: int
    present: dict[str, int]
    entropy: float | None


@dataclass(frozen=True)
class Summary:
    """`labels`: clips by value, by column, most frequent first; clips without a value are not counted. `entropy`: of
    `label_column` over the clips that have one, in bits; shards far below it were not shuffled. `silent`: clips whose
    sound track is silence, and so absent."""

    clips: int
    hours: float
    bytes: int
    silent: int
    modalities: list[ModalitySummary]
    shards: list[ShardSummary]
    labels: dict[str, dict[str, int]]
    label_column: str | None
    entropy: float | None


def summarise(index: Index) -> Summary:
    """Counts, rates and sizes by modality and shard; the entropy is that of `label`, else of the first column."""
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
        modalities=modalities,
        shards=shards,
        labels=labels,
        label_column=column,
        entropy=entropy(filter(None, index.column(column))) if column else None,
    )


def entropy(values: Iterable[str]) -> float:
    """Shannon entropy in bits of the values' frequencies; 0 where there are none."""
    counts = np.array(list(Counter(values).values()), dtype=np.float64)
    if not len(counts):
        return 0.0
    shares = counts / counts.sum()
    return abs(float(-(shares * np.log2(shares)).sum()))
