"""Near-duplicates across a split: named in a warning, cached by content, ignored within a group."""

from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.clips import duplicates as hashing
from modalgate.shards.index.table import Index, Sample, Shard
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.tasks.splits import leak_check as module
from modalgate.tasks.splits.leak_check import clip_hashes, duplicates, warn_of_duplicates
from modalgate.tasks.splits.splits import Split

HASHES = np.random.default_rng(0).integers(0, 2**63, (6, 9)).astype(np.uint64)
HASHES[4] = HASHES[0] ^ np.uint64(5)  # two bits of every word
HASHES[5] = HASHES[1]


def index(groups: str = "", sha: str = "ab") -> Index:
    labels = [{"group": group} for group in groups] or [{} for _ in range(6)]
    samples = tuple(Sample(f"c{n}", "s.tar", 1.0, labels[n], {"rgb.mp4": (n, 1)}) for n in range(6))
    return Index(PackSettings(), {}, (Shard("s.tar", 6, 9, sha * 32, {"rgb": 6}),), samples)


def split(train: list[int], test: list[int]) -> Split:
    return Split("test", np.array(train), np.array([], int), np.array(test))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clips that were hashed, in order."""
    seen: list[str] = []

    def hash_clip(files: object, index: Index, sample: Sample) -> np.ndarray | None:
        seen.append(sample.key)
        return None if sample.key == "c3" else HASHES[int(sample.key[1:])]

    assert hasattr(hashing, "hash_clip")
    monkeypatch.setattr(module, "hash_clip", hash_clip)
    return seen


def test_pairs_on_both_sides_are_named(read: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pairs = warn_of_duplicates(index(), [split([0, 1, 2], [3, 4, 5])])
    assert [(pair.first, pair.second, pair.bits) for pair in pairs] == [(1, 5, 0), (0, 4, 18)]
    warning = capsys.readouterr().err
    assert "2 pairs of clips" in warning
    assert "'c1' and 'c5' (0 of 575 bits differ), 'c0' and 'c4' (18 of 575 bits differ)" in warning


def test_pairs_on_one_side_give_no_warning(read: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert not warn_of_duplicates(index(), [split([0, 4, 2], [1, 5, 3])])
    assert not capsys.readouterr().err


def test_pairs_within_a_group_are_omitted(read: list[str]) -> None:
    hashes, there = clip_hashes(index())
    assert [(p.first, p.second) for p in duplicates(index("abcdaf"), hashes, there)] == [(1, 5)]
    assert [(p.first, p.second) for p in duplicates(index("abcdef"), hashes, there)] == [(1, 5), (0, 4)]


def test_hashes_are_reused_by_content(read: list[str], tmp_path: Path) -> None:
    hashes, there = clip_hashes(index(), tmp_path)
    assert there.tolist() == [True, True, True, False, True, True]
    again, _ = clip_hashes(index(), tmp_path)
    assert len(read) == 6
    assert (again == hashes).all()
    some = index().keep(["c5", "c0"])
    few, _ = clip_hashes(some, tmp_path)
    assert len(read) == 6
    assert (few == hashes[[0, 5]]).all()
    clip_hashes(index(sha="cd"), tmp_path)
    assert len(read) == 12
    [file] = tmp_path.iterdir()
    file.write_bytes(b"nothing")
    clip_hashes(index(), tmp_path)
    assert len(read) == 18
