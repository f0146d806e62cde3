"""Inputs of embedding: folders, lists, single files and shards, and messages for invalid ones."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import load_index
from modalgate.shards.live.inputs import Material, find_material
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.packing.sources import Source


def keys(material: Material) -> list[str]:
    return [item.key for item in material.items]


def test_a_folder_gives_the_recordings_of_pack(folder: Path, film: Callable[..., Path], tmp_path: Path) -> None:
    assert keys(find_material(str(folder))) == [f"video/c{number}.mp4" for number in range(6)]
    first = find_material(str(folder)).items[0].held
    assert isinstance(first, Source)
    assert set(first.files) == {"video", "depth", "inertial"}
    # Without a label file, by stem. The depth file is found first, and the video names both.
    film(tmp_path / "video" / "a.mp4", 0.4)
    film(tmp_path / "depth" / "a.mkv", 0.4)
    film(tmp_path / "b.mp4", 0.4)
    assert sorted(keys(find_material(str(tmp_path)))) == ["b.mp4", "video/a.mp4"]


def test_paths_in_a_list_are_relative_to_the_list(film: Callable[..., Path], tmp_path: Path) -> None:
    film(tmp_path / "media" / "a.mp4", 0.4)
    film(tmp_path / "b.mp4", 0.4)
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "few.txt"
    listed.write_text("# two of them\n../media/a.mp4\n\n../b.mp4\n../b.mp4\nnone.mp4\n")
    items = find_material(str(listed)).items
    assert [item.key for item in items] == ["../media/a.mp4", "../b.mp4", "../b.mp4", "none.mp4"]
    assert [item.problem for item in items] == ["", "", "it is in 'few.txt' more than once", "it does not exist"]


def test_a_table_and_a_single_file(folder: Path) -> None:
    table = folder / "labels.csv"
    assert keys(find_material(str(table))) == keys(find_material(str(folder)))
    assert keys(find_material(str(folder / "video" / "c3.mp4"))) == ["c3.mp4"]


def test_shards_give_their_clips(folder: Path, small: Callable[..., PackSettings], tmp_path: Path) -> None:
    pack(folder, tmp_path / "shards", small(modalities=("rgb",)), workers=1)
    material = find_material(str(tmp_path / "shards"))
    assert keys(material) == [sample.key for sample in load_index(tmp_path / "shards").samples]
    assert material.index is not None


def test_rates_of_a_table_override_those_of_the_command(film: Callable[..., Path], tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 0.4)
    film(tmp_path / "b.mp4", 0.4)
    (tmp_path / "labels.csv").write_text("video,video_rate\na.mp4,12\nb.mp4,\n")
    held = [item.held for item in find_material(str(tmp_path), {"video": 30.0}).items]
    assert [source.rates for source in held if isinstance(source, Source)] == [{"video": 12.0}, {"video": 30.0}]


def test_the_fingerprint_depends_on_content_and_not_on_times(film: Callable[..., Path], tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 0.4)
    before = find_material(str(tmp_path))
    # A second later: two writes at once may get the same time.
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    touched = find_material(str(tmp_path))
    assert touched.fingerprint == before.fingerprint
    assert touched.items[0].stamp != before.items[0].stamp
    path.write_bytes(path.read_bytes() + b"0")
    assert find_material(str(tmp_path)).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none", None, "nothing at '.*none': give a folder of recordings, a list"),
        ("empty.txt", "# nothing\n", "list '.*empty.txt' names no file"),
        ("gone.txt", "a.mp4\nb.mp4\n", "names files that do not exist: '.*a.mp4' and 1 more"),
        ("notes.md", "x", "is neither a media file nor a list"),
        ("table.csv", "file\na.mp4\n", "has no column that names files"),
    ],
)
def test_an_invalid_input_is_one_line(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RequestError, match=says) as caught:
        find_material(str(tmp_path / name))
    assert "\n" not in str(caught.value)
