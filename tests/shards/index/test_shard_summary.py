"""Numbers of a shard folder against counts made by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from modalgate.shards.index.shard_summary import entropy, summarise
from modalgate.shards.index.table import Index, Sample, Shard
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack


def test_entropy() -> None:
    assert entropy(["a"] * 5) == 0
    assert entropy("abcd") == pytest.approx(2)
    assert entropy("aaab") == pytest.approx(-0.75 * math.log2(0.75) + 0.5)


def test_packed(folder: Path, small: Callable, tmp_path: Path) -> None:
    index = pack(folder, tmp_path / "out", small(modalities=("audio", "inertial", "depth")), workers=1)
    summary = summarise(index)
    assert [(row.name, row.clips, row.rate) for row in summary.modalities] == [
        ("audio", 3, 16000.0), ("inertial", 6, 50.0), ("depth", 6, 10.0)
    ]  # fmt: skip
    assert summary.modalities[0].bytes == 3 * (44 + 2 * 16000)
    assert [(row.clips, row.bytes) for row in summary.shards] == [(s.samples, s.bytes) for s in index.shards]
    assert [row.present for row in summary.shards] == [shard.present for shard in index.shards]
    # Clips with odd numbers have a silent track.
    assert (summary.clips, summary.silent, summary.bytes) == (6, 3, sum(shard.bytes for shard in index.shards))
    assert summary.hours == pytest.approx(6 / 3600)
    assert summary.labels["label"] == {"fight": 3, "calm": 3}
    assert summary.label_column == "label"
    assert summary.entropy == pytest.approx(1)
    for row in summary.shards:
        held = [sample.labels["label"] for sample in index.samples if sample.shard == row.name]
        assert row.entropy == pytest.approx(entropy(held))


def test_without_labels() -> None:
    shard = Shard("shard-000000.tar", 1, 10, "", {"rgb": 1})
    sample = Sample("a", shard.name, 1.0, {}, {"rgb.mp4": (0, 5)})
    summary = summarise(Index(PackSettings(modalities=("rgb",)), {}, (shard,), (sample,)))
    assert (summary.label_column, summary.entropy, summary.labels) == (None, None, {})
    assert summary.shards[0].entropy is None
