"""A finished packing notices when a file that it was made from has changed."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.index.verify import verify
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import REJECTED_NAME, pack
from modalgate.shards.packing.packed_sources import changed_files, stamps_of
from modalgate.shards.packing.sources import Source, find_sources

SETTINGS = PackSettings(modalities=("rgb", "depth", "inertial"), size=32, fps=10.0, samples_per_shard=4)


@pytest.fixture
def source(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "in"))


@pytest.fixture
def out(source: Path, tmp_path: Path) -> Path:
    pack(source, tmp_path / "out", SETTINGS, workers=1)
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(path: Path, film: Callable[..., Path]) -> None:
    """A film of the same length under the same name."""
    film(path, 1.0, seed=99)


def test_a_replaced_file_is_refused_by_name(source: Path, out: Path, film: Callable[..., Path]) -> None:
    before = contents(out)
    assert pack(source, out, SETTINGS).samples == load_index(out).samples
    rewrite(source / "video" / "c2.mp4", film)
    with pytest.raises(RequestError, match=r"c2.mp4' has changed since '.*out' was packed: add --repack"):
        pack(source, out, SETTINGS)
    os.utime(source / "depth" / "c4.mkv")
    with pytest.raises(RequestError, match=r"c2.mp4' and 1 more has changed"):
        pack(source, out, SETTINGS)
    assert contents(out) == before


def test_repack_equals_a_new_packing(source: Path, out: Path, tmp_path: Path, film: Callable[..., Path]) -> None:
    rewrite(source / "video" / "c2.mp4", film)
    pack(source, out, SETTINGS, workers=1, repack=True)
    pack(source, tmp_path / "new", SETTINGS, workers=1)
    assert contents(out) == contents(tmp_path / "new")
    assert verify(out) == []
    # Other settings too, with fewer shards.
    wider = PackSettings(modalities=("inertial",), size=32, fps=10.0, samples_per_shard=8)
    with pytest.raises(RequestError, match="or add --repack to replace them"):
        pack(source, out, wider)
    assert len(pack(source, out, wider, workers=1, repack=True).shards) == 1
    assert verify(out) == []


def test_a_failed_or_killed_repack_leaves_the_shards(source: Path, out: Path, film: Callable[..., Path]) -> None:
    before = contents(out)
    for name in ("c2", "c3"):
        (source / "video" / f"{name}.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match="2 of 6 recordings cannot be packed"):
        pack(source, out, SETTINGS, workers=1, repack=True)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert verify(out) == []
    for name in ("c2", "c3"):
        rewrite(source / "video" / f"{name}.mp4", film)
    told: list[tuple[int, int, int]] = []
    pack(source, out, SETTINGS, workers=1, repack=True, progress=lambda *counts: told.append(counts))
    assert told[0] == (4, 6, 0), "what was encoded is used"
    assert verify(out) == []
    assert not (out / REJECTED_NAME).exists()


def test_a_repaired_file_that_was_rejected_is_noticed(
    source: Path, tmp_path: Path, film: Callable[..., Path]
) -> None:
    (source / "video" / "c2.mp4").write_bytes(b"no film")
    pack(source, tmp_path / "out", SETTINGS, workers=1, max_rejected=0.5)
    rewrite(source / "video" / "c2.mp4", film)
    with pytest.raises(RequestError, match=r"c2.mp4' has changed"):
        pack(source, tmp_path / "out", SETTINGS)
    assert len(pack(source, tmp_path / "out", SETTINGS, workers=1, repack=True).samples) == 6


def test_repack_does_not_replace_something_else(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(RequestError, match="already holds something"):
        pack(source, tmp_path / "mine", SETTINGS, repack=True)


def test_stamps(source: Path, tmp_path: Path) -> None:
    """Frames of a folder count, absent files have no stamp, and shards of older versions know nothing."""
    frames = tmp_path / "mine" / "f0"
    frames.mkdir(parents=True)
    (frames / "0.png").write_bytes(b"1")
    sources = [
        *find_sources(source),
        *find_sources(tmp_path / "mine"),
        Source("lost", {"video": Path("lost")}, problem="!"),
    ]
    old = Index(SETTINGS, {}, (), ())
    assert changed_files(old, sources) == []
    index = replace(old, stamps=json.loads(json.dumps(stamps_of(sources))))
    assert set(index.stamps) == {one.key for one in sources}
    assert changed_files(index, sources) == []
    (frames / "0.png").write_bytes(b"22")
    (source / "inertial" / "c1.csv").write_text("1,2,3,4,5,6\n")
    assert {path.name for path in changed_files(index, sources)} == {"c1.csv", "f0"}
