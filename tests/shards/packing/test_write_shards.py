"""Clips to shards: one uniform order of all clips, a shard for each reader."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.errors import DataError
from modalgate.shards.index.table import load_index
from modalgate.shards.index.whole_file import sha256
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.encode import EncodedClip, Moments
from modalgate.shards.packing.sources import Source
from modalgate.shards.packing.spool import SpooledClip, SpoolWriter, read_clips
from modalgate.shards.packing.write_shards import assemble


@pytest.fixture
def clips(tmp_path: Path) -> list[SpooledClip]:
    """Four pieces of each of three recordings. The n-th of all clips has the JSON `n` and the value n."""
    media, spool = tmp_path / "in.npy", tmp_path / "spool"
    media.touch()
    spool.mkdir()
    held = []
    for recording in range(3):
        source = Source(f"r{recording}", {"inertial": media})
        writer = SpoolWriter(spool, source)
        for piece in range(4):
            number = 4 * recording + piece
            moments = {"inertial": Moments(1, np.array([float(number)]), np.array([float(number**2)]))}
            key, members = f"r{recording}-{piece:03d}", {"inertial.npy": b"x" * number, "json": b"%d" % number}
            writer.add(EncodedClip(key, source.key, 1.0, {}, members, moments, silent=piece == 0))
        writer.close()
        held += read_clips(spool, source)
    return held


def settings(**changes: int) -> PackSettings:
    return PackSettings(modalities=("inertial",), **({"samples_per_shard": 5} | changes))  # pyright: ignore


def test_shards_and_index(clips: list[SpooledClip], tmp_path: Path) -> None:
    index = assemble(tmp_path, clips, settings(), "digest")
    assert load_index(tmp_path) == index
    assert [shard.samples for shard in index.shards] == [5, 5, 2]
    assert sum(shard.silent for shard in index.shards) == 3
    assert all(sha256(tmp_path / shard.name) == shard.sha256 for shard in index.shards)
    assert index.source == "digest"
    numbers = {clip.key: number for number, clip in enumerate(clips)}
    for sample in index.samples:
        with (tmp_path / sample.shard).open("rb") as file:
            offset, size = sample.members["json"]
            file.seek(offset)
            assert int(file.read(size)) == numbers[sample.key]
        assert sample.members["inertial.npy"][1] == numbers[sample.key]
        assert sample.labels == {"group": sample.key[:2]}
    values = np.arange(12)
    np.testing.assert_allclose(index.statistics["inertial"].mean, values.mean())
    np.testing.assert_allclose(index.statistics["inertial"].std, values.std())


@pytest.mark.slow
def test_the_order_is_uniform_over_all_clips(clips: list[SpooledClip], tmp_path: Path) -> None:
    """Each of 12 clips comes first equally often, and the second is of the same recording in 3 of 11 cases."""
    runs, first, together = 480, Counter[str](), 0
    for seed in range(runs):
        index = assemble(tmp_path, clips, settings(seed=seed, samples_per_shard=12), "")
        first[index.samples[0].key] += 1
        together += index.samples[0].key[:2] == index.samples[1].key[:2]
    expected = runs / 12
    chi_square = sum((first[clip.key] - expected) ** 2 / expected for clip in clips)
    # The 99.9th percentile with 11 degrees of freedom.
    assert chi_square < 31.3
    share, deviation = 3 / 11, np.sqrt(3 / 11 * 8 / 11 / runs)
    assert abs(together / runs - share) < 4 * deviation


@pytest.mark.parametrize(("readers", "sizes"), [(1, [5, 5, 2]), (3, [4, 4, 4]), (5, [2] * 6), (12, [1] * 12)])
def test_a_shard_for_each_reader(clips: list[SpooledClip], tmp_path: Path, readers: int, sizes: list[int]) -> None:
    index = assemble(tmp_path, clips, settings(readers=readers), "")
    assert [shard.samples for shard in index.shards] == sizes


def test_more_readers_than_clips(clips: list[SpooledClip], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="12 clips cannot fill a shard for each of 13 readers"):
        assemble(tmp_path, clips, settings(readers=13), "")


def test_a_truncated_spool_file(clips: list[SpooledClip], tmp_path: Path) -> None:
    clips[0].file.write_bytes(b"")
    with pytest.raises(OSError, match="is cut short: delete it and pack again"):
        assemble(tmp_path, clips, settings(), "")
    assert not list(tmp_path.glob("*.json"))
