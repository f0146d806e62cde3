"""Write encoded clips in shuffled order as WebDataset tars, and their index."""

import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from webdataset.writer import TarWriter

from ..errors import DataError
from ..index.table import INDEX_NAME, Index, Sample, Shard, Stamps, Statistics, save_index
from ..index.whole_file import sha256, whole_file
from ..media.pack_settings import PackSettings
from .encode import Moments
from .spool import SpooledClip


def assemble(
    out: Path, clips: list[SpooledClip], settings: PackSettings, source: str, stamps: Stamps | None = None
) -> Index:
    """Writes the clips to shards in `out`, shuffled with `settings.seed`, then writes `index.json`, and returns it.

    `source`, `stamps`: digest of the recordings and stamps of their files, which the index stores. A tar gets its
    final name once it is complete, and the index is written last.

    Raises `DataError` if there are fewer clips than `settings.readers`: each reader needs a shard.
    """
    if len(clips) < settings.readers:
        raise DataError(
            f"{len(clips)} clips cannot fill a shard for each of {settings.readers} readers: "
            "give fewer --readers, or cut shorter clips with --clip-seconds"
        )
    # Without its shards an older index is worthless. An interrupted run may have used other shard sizes.
    (out / INDEX_NAME).unlink(missing_ok=True)
    for left in out.glob("shard-*.tar"):
        left.unlink()
    order = np.random.default_rng(settings.seed).permutation(len(clips))
    shuffled = [clips[number] for number in order]
    per_shard = min(settings.samples_per_shard, len(clips) // settings.readers)
    shards: list[Shard] = []
    samples: list[Sample] = []
    for first in range(0, len(shuffled), per_shard):
        held = shuffled[first : first + per_shard]
        name = f"shard-{len(shards):06d}.tar"
        samples += _write_shard(out / name, held)
        present = {wanted: sum(wanted in clip.moments for clip in held) for wanted in settings.modalities}
        silent, gapped = sum(clip.silent for clip in held), sum(clip.gaps > 0 for clip in held)
        size, digest = (out / name).stat().st_size, sha256(out / name)
        shards.append(Shard(name, len(held), size, digest, present, silent, gapped))
    # Without a group column and without cut recordings, every clip is its own group.
    groups = [clip.group for clip in shuffled]
    if len(set(groups)) < len(samples) or any("group" in sample.labels for sample in samples):
        samples = [
            replace(sample, labels=sample.labels | {"group": group})
            for sample, group in zip(samples, groups, strict=True)
        ]
    statistics, counts = _statistics(shuffled)
    index = Index(
        settings,
        statistics,
        tuple(shards),
        tuple(samples),
        folder=out,
        source=source,
        counts=counts,
        stamps=stamps or {},
    )
    save_index(index, out)
    return index


def _write_shard(path: Path, clips: list[SpooledClip]) -> list[Sample]:
    with whole_file(path) as partial:
        # Closed even if the disk is full: otherwise the garbage collector prints an error.
        with (
            partial.open("wb") as file,
            closing(TarWriter(file, encoder=False, mtime=0, user="modalgate", group="modalgate")) as tar,
        ):
            for clip in clips:
                tar.write({"__key__": clip.key, **clip.read()})
        with tarfile.open(partial) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
    return [
        Sample(
            clip.key,
            path.name,
            clip.duration,
            clip.labels,
            {suffix: places[f"{clip.key}.{suffix}"] for suffix in clip.members},
        )
        for clip in clips
    ]


def _statistics(clips: list[SpooledClip]) -> tuple[dict[str, Statistics], dict[str, int]]:
    """Returns statistics by modality, and the number of values per channel they were measured on."""
    moments: dict[str, Moments] = {}
    for clip in clips:
        for name, entry in clip.moments.items():
            moments[name] = moments[name] + entry if name in moments else entry
    statistics = {}
    for name, entry in moments.items():
        # Depth may be unmeasured everywhere.
        count = max(entry.count, 1)
        mean = entry.total / count
        variance = np.maximum(entry.squares / count - mean**2, 0)
        statistics[name] = Statistics(tuple(mean.tolist()), tuple(np.sqrt(variance).tolist()))
    return statistics, {name: entry.count for name, entry in moments.items()}
