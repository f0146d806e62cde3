"""Discovery: label tables, folders, keys, and what is said of a bad request."""

from pathlib import Path

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.sources import find_sources


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_table_splits_files_from_labels(tmp_path: Path) -> None:
    touch(tmp_path, "video/a.mp4", "depth/a.mkv", "video/b.mp4")
    (tmp_path / "labels.csv").write_text("video,depth,label,group\nvideo/a.mp4,depth/a.mkv,x,g\nvideo/b.mp4,,y,h\n")
    first, second = find_sources(tmp_path)
    assert first.key == "a"
    assert first.files == {"video": tmp_path / "video/a.mp4", "depth": tmp_path / "depth/a.mkv"}
    assert first.labels == {"label": "x", "group": "g"}
    assert second.files == {"video": tmp_path / "video/b.mp4"}


def test_table_elsewhere_is_relative_to_itself(tmp_path: Path) -> None:
    touch(tmp_path, "media/a.mp4")
    (tmp_path / "media" / "mine.csv").write_text("rgb,label\na.mp4,x\n")
    (tmp_path / "other").mkdir()
    (source,) = find_sources(tmp_path / "other", tmp_path / "media" / "mine.csv")
    assert source.files == {"video": tmp_path / "media" / "a.mp4"}


def test_folder_joins_by_stem(tmp_path: Path) -> None:
    touch(tmp_path, "s/video/a.mp4", "s/depth/a.mkv", "s/audio/a.wav", "s/inertial/a.csv", "t/b.avi", "t/b.wav")
    touch(tmp_path, "t/notes.csv", "t/readme.txt")
    found = {
        source.key: {kind: path.suffix for kind, path in source.files.items()} for source in find_sources(tmp_path)
    }
    assert found == {
        "a": {"audio": ".wav", "depth": ".mkv", "inertial": ".csv", "video": ".mp4"},
        "b": {"video": ".avi", "audio": ".wav"},
    }


def test_sound_in_a_video_folder_is_sound(tmp_path: Path) -> None:
    touch(tmp_path, "video/a.mp4", "video/a.wav", "rgb/b.mp4")
    found = {source.key: set(source.files) for source in find_sources(tmp_path)}
    assert found == {"a": {"video", "audio"}, "b": {"video"}}


def test_hidden_files_are_left_out_but_not_folders_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, ".cache/clips/a.mp4", ".cache/clips/.b.mp4", ".cache/clips/.old/c.mp4")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert [source.key for source in find_sources(Path("../.cache/clips"))] == ["a"]


def test_keys_are_safe_and_unique(tmp_path: Path) -> None:
    touch(tmp_path, "one/v.1.mp4", "two/v.1.mp4", "two/v.2.mp4", "two/v.2.avi", "two/a b.mp4")
    sources = find_sources(tmp_path)
    keys = [source.key for source in sources]
    assert len(set(keys)) == len(keys) == 5
    assert {"one_v_1", "two_v_1", "a_b"} <= set(keys)
    assert all("." not in key and "/" not in key for key in keys)
    assert len({path for source in sources for path in source.files.values()}) == 5


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("video,label\na.mp4,x\nlost.mp4,y\ngone.mp4,y\n", r"lost\.mp4' and 1 more"),
        ("name,label\na,x\n", "no column that names files"),
        ("video,label\n", "no rows"),
        ("video,label\na.mp4\n", "line 2: it has not as many fields"),
        ("video,label\na.mp4,x,y\n", "line 2: it has not as many fields"),
        ("video,depth,label\n,,x\n", "line 2: it names no file"),
    ],
)
def test_bad_tables(tmp_path: Path, table: str, said: str) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(RequestError, match=said) as caught:
        find_sources(tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_places(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder at"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="holds no media"):
        find_sources(tmp_path)
    touch(tmp_path, "notes.txt")
    with pytest.raises(RequestError, match="holds no media"):
        find_sources(tmp_path)
    with pytest.raises(RequestError, match="no label file at"):
        find_sources(tmp_path, tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_bytes(b"video\n\xff\xfe.mp4\n")
    with pytest.raises(RequestError, match="not a UTF-8 CSV"):
        find_sources(tmp_path)
