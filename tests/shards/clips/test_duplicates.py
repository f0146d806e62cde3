"""Perceptual hashes: copies are near, other clips are not, and no pair is missed."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from modalgate.shards.clips.duplicates import LIMIT, MOTION_BITS, PICTURE_BITS, hash_clip, hash_frames, near_pairs
from modalgate.shards.index.location import FolderReader
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.container_io import iterate_frames, write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.worlds.write_world import write_world
from numpy.typing import NDArray


@pytest.fixture(scope="module")
def copies(
    tmp_path_factory: pytest.TempPathFactory, film: Callable[..., Path], drifting: Callable[..., NDArray]
) -> Index:
    """Ten drifting textures, smaller and coarser copies of two, and another motion on a shared background."""
    root = tmp_path_factory.mktemp("copies")
    for number in range(10):
        film(root / "media" / f"c{number}.mp4", 2.0, height=96, width=128, seed=number, dx=1 + number % 3, dy=2)
    for number in range(2):
        frames = [f.to_ndarray(format="rgb24") for _, f in iterate_frames(root / "media" / f"c{number}.mp4")]
        small = np.stack([cv2.resize(frame, (114, 86), interpolation=cv2.INTER_AREA) for frame in frames])
        write_video(root / "media" / f"copy{number}.mp4", small, 10, options={"crf": "32"})
    place = drifting(1, 96, 128, seed=99)[0]
    for number in range(2):
        scene = np.repeat(place[None], 20, axis=0)
        for time in range(20):
            row, column = (20 + 2 * time, 10 + 4 * time) if number else (80 - 2 * time, 80 - 2 * time)
            scene[time, row : row + 9, column : column + 9] = 250
        write_video(root / "media" / f"camera{number}.mp4", scene, 10)
    pack(root / "media", root / "shards", PackSettings(modalities=("rgb",), size=64, fps=10.0), workers=1)
    return load_index(root / "shards")


def hashes_of(index: Index) -> NDArray[np.uint64]:
    found = [hash_clip(FolderReader(index.folder), index, sample) for sample in index.samples]
    return np.stack([row for row in found if row is not None])


def test_copies_are_found_and_nothing_else(copies: Index) -> None:
    keys = [sample.key for sample in copies.samples]
    pairs = {frozenset((keys[p.first], keys[p.second])) for p in near_pairs(hashes_of(copies))}
    assert pairs == {frozenset(("c0", "copy0")), frozenset(("c1", "copy1"))}


def test_another_motion_on_the_same_background_is_not_a_copy(copies: Index) -> None:
    hashes = hashes_of(copies)
    one, two = (hashes[[s.key for s in copies.samples].index(f"camera{number}")] for number in (0, 1))
    assert int(np.bitwise_count(one[0] ^ two[0])) <= LIMIT * PICTURE_BITS
    assert int(np.bitwise_count(one[1:] ^ two[1:]).sum()) > LIMIT * MOTION_BITS


@pytest.mark.slow
def test_generated_clips_are_not_duplicates(tmp_path: Path) -> None:
    write_world(tmp_path / "world", "impact12", 48, workers=1)
    settings = PackSettings(modalities=("rgb", "depth"), size=48, fps=8.0)
    index = pack(tmp_path / "world", tmp_path / "shards", settings, workers=1)
    assert not near_pairs(hashes_of(index))


def test_no_pair_is_missed() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, (700, 9)).astype(np.uint64)
    # Copies that differ in 10 to 109 bits: some are within both limits, others beyond one.
    for number in range(100):
        copy = hashes[number].copy()
        for bit in generator.choice(576, 10 + number, replace=False):
            copy[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
        hashes[699 - number] = copy
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    expected = []
    for first in range(700):
        differ = bits[first] != bits[first + 1 :]
        still, moving = differ[:, :64].sum(axis=1), differ[:, 64:].sum(axis=1)
        near = np.flatnonzero((still <= LIMIT * PICTURE_BITS) & (moving <= LIMIT * MOTION_BITS))
        expected += [(first, first + 1 + row, int(differ[row].sum())) for row in near.tolist()]
    found = [(pair.first, pair.second, pair.bits) for pair in near_pairs(hashes)]
    assert sorted(found) == sorted(expected)
    assert 20 < len(found) < 100
    assert [pair[2] for pair in found] == sorted(pair[2] for pair in found)


def test_brightness_does_not_matter_and_a_still_has_a_hash() -> None:
    frames = np.random.default_rng(0).random((8, 32, 32)).astype(np.float32) * 200
    assert (hash_frames(frames) == hash_frames(frames * 0.8 + 20)).all()
    still = np.repeat(frames[:1], 8, axis=0)
    assert not hash_frames(still)[1:].any()


def test_a_clip_without_pictures_has_no_hash(copies: Index) -> None:
    sample = copies.samples[0]
    silent = type(sample)(sample.key, sample.shard, sample.duration, {}, {"json": sample.members["json"]})
    assert hash_clip(FolderReader(copies.folder), copies, silent) is None
    broken = type(sample)(sample.key, sample.shard, sample.duration, {}, {"rgb.mp4": sample.members["json"]})
    assert hash_clip(FolderReader(copies.folder), copies, broken) is None


REAL = Path(os.environ.get("MODALGATE_DATA", Path(__file__).parents[4] / "shared" / "data")) / "surv-fight"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings at MODALGATE_DATA or ../shared/data")
@pytest.mark.slow
def test_surveillance_clips_of_different_sources_are_not_duplicates(tmp_path: Path) -> None:
    index = pack(REAL, tmp_path / "shards", PackSettings(modalities=("rgb",)), workers=2)
    groups = index.column("group")
    assert not [pair for pair in near_pairs(hashes_of(index)) if groups[pair.first] != groups[pair.second]]
