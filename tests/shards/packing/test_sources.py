"""Discovery: label tables, folders, keys, and messages for bad requests."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.packing.sources import find_recordings, find_sources, fingerprint, stamp


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


def test_paths_in_a_table_are_relative_to_the_table(tmp_path: Path) -> None:
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


def test_an_audio_file_in_a_video_folder_is_audio(tmp_path: Path) -> None:
    touch(tmp_path, "video/a.mp4", "video/a.wav", "rgb/b.mp4")
    found = {source.key: set(source.files) for source in find_sources(tmp_path)}
    assert found == {"a": {"video", "audio"}, "b": {"video"}}


def test_hidden_files_are_skipped_but_not_parent_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, ".cache/clips/a.mp4", ".cache/clips/.b.mp4", ".cache/clips/.old/c.mp4")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert [source.key for source in find_sources(Path("../.cache/clips"))] == ["a"]


def test_keys_are_safe_and_unique(tmp_path: Path) -> None:
    long = "x" * 150
    touch(tmp_path, "one/v.1.mp4", "two/v.1.mp4", "two/v.2.mp4", "two/a b.mp4", "two/b.mp4", "two/b-000.mp4")
    touch(tmp_path, f"two/{long}1.mp4", f"two/{long}2.mp4", "two/日本語.mp4")
    sources = find_sources(tmp_path)
    keys = [source.key for source in sources]
    assert len(set(keys)) == len(keys) == 9
    assert {"one_v_1", "two_v_1", "v_2", "a_b", "b", "日本語"} <= set(keys)
    # Pieces of b would have the key b-000.
    assert "b-000" not in keys
    assert all("." not in key and "/" not in key and len(key.encode()) < 140 for key in keys)
    assert len({path for source in sources for path in source.files.values()}) == 9
    assert not any(source.problem for source in sources)


def test_equal_stems(tmp_path: Path) -> None:
    touch(tmp_path, "a.avi", "a.mp4", "a.wav", "b.mp4")
    problems = {source.path.name: source.problem for source in find_sources(tmp_path)}
    assert problems == {
        "a.avi": "",
        "a.mp4": "it has the same stem as 'a.avi': rename one of them",
        "b.mp4": "",
    }


def test_repeated_rows_and_absent_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "labels.csv").write_text("video,label\na.mp4,x\nb.mp4,y\na.mp4,z\nlost.mp4,z\n")
    problems = [source.problem for source in find_sources(tmp_path)]
    assert problems[:3] == ["", "", "'a.mp4' is in lines 2 and 4 of 'labels.csv'"]
    assert "lost.mp4', named in line 5 of 'labels.csv', does not exist" in problems[3]


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    touch(tmp_path, "good.mp4")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    good, bad = find_sources(tmp_path)
    assert good.problem == ""
    assert "its name is not UTF-8" in bad.problem
    assert bad.key.isascii()


def test_frame_folders(tmp_path: Path) -> None:
    """By recording or by modality. Pictures next to videos are thumbnails; hidden folders are skipped."""
    touch(
        tmp_path, "s/rgb/0.jpg", "s/depth/0.png", "s.wav", "depth/t/1.png", "video/t/1.jpeg", "u/f1.png", "u/f2.png"
    )
    touch(tmp_path, "films/v.mp4", "films/v.jpg", ".old/w/1.png")
    found = {
        source.key: {kind: str(path.relative_to(tmp_path)) for kind, path in source.files.items()}
        for source in find_sources(tmp_path)
    }
    assert found == {
        "s": {"audio": "s.wav", "depth": "s/depth", "video": "s/rgb"},
        "t": {"depth": "depth/t", "video": "video/t"},
        "u": {"video": "u"},
        "v": {"video": "films/v.mp4"},
    }


def test_rates_of_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "f/0.png", "f/1.png", "i.csv")
    (tmp_path / "labels.csv").write_text("rgb,rgb_rate,inertial,inertial_rate,label\nf,12.5,i.csv,,x\n")
    (source,) = find_sources(tmp_path)
    assert source.files == {"video": tmp_path / "f", "inertial": tmp_path / "i.csv"}
    assert source.rates == {"video": 12.5}
    assert source.labels == {"label": "x"}


def test_fingerprint_and_stamp_change_with_the_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "f/0.png", "f/1.png")
    (source,) = find_sources(tmp_path)
    digest, before = fingerprint([source]), stamp(source)
    assert (fingerprint([source]), stamp(source)) == (digest, before)
    touch(tmp_path, "f/2.png")
    assert stamp(source) != before
    assert fingerprint([replace(source, labels={"label": "x"})]) != digest
    assert fingerprint([replace(source, rates={"video": 10.0})]) != digest


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("video,label\nlost.mp4,y\ngone.mp4,y\n", r"lost\.mp4' and 1 more"),
        ("name,label\na,x\n", "no column that names files"),
        ("video,label\n", "no rows"),
        ("video,label\nvideo\\a.mp4,y\n", r"write paths with / and not with"),
        ("video;label\na.mp4;y\n", "separates its columns by semicolons"),
        ('video,label\na.mp4,"x\nb.mp4,y\n', "line 2: not a CSV row"),
        ("video,label\na.mp4\n", "line 2: it does not have as many fields"),
        ("video,label\na.mp4,x,y\n", "line 2: it does not have as many fields"),
        ("video,depth,label\n,,x\n", "line 2: it names no file"),
        ("video,video_rate\na.mp4,fast\n", "line 2: rate 'fast' is not a number of Hz above 0"),
        ("video,video_rate\na.mp4,-3\n", "line 2: rate '-3' is not a number of Hz above 0"),
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
    with pytest.raises(RequestError, match="is not UTF-8 text"):
        find_sources(tmp_path)


def found(root: Path, labels: Path | None = None) -> dict[str, tuple[set[str], dict[str, str]]]:
    return {source.key: (set(source.files), source.labels) for source in find_sources(root, labels)}


def test_unnamed_recordings_are_found_without_labels(tmp_path: Path) -> None:
    """They are joined by stem, with the kinds of the table. Files of a named recording do not make a second one."""
    touch(tmp_path, "video/a.mp4", "depth/a.mkv", "video/b.mp4", "depth/b.mkv", "video/c.mp4", "audio/c.wav")
    touch(tmp_path, "audio/a.wav", "depth/lost.mkv", "video/.hidden.mp4", "notes.txt", "plots/curve.png")
    (tmp_path / "labels.csv").write_text("video,depth,label,group\nvideo/a.mp4,depth/a.mkv,x,g\n")
    empty = {"label": "", "group": ""}
    assert found(tmp_path) == {
        "a": ({"video", "depth"}, {"label": "x", "group": "g"}),
        "b": ({"video", "depth"}, empty),
        "c": ({"video"}, empty),
    }
    whole = find_recordings(tmp_path)
    # Skipped: two sound files, a depth file without video, and the folder of a picture.
    assert (whole.named, whole.labelled, len(whole.sources), whole.left_out) == (1, 1, 3, 4)
    only = find_recordings(tmp_path, labelled_only=True)
    assert ([source.key for source in only.sources], only.left_out) == (["a"], 7)
    assert [source.key for source in find_sources(tmp_path, labelled_only=True)] == ["a"]


def test_a_row_with_a_group_but_no_label_is_unlabelled(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "labels.csv").write_text("video,label,group,split\na.mp4,x,g,train\nb.mp4,,g,train\nc.mp4, ,h,\n")
    whole = find_recordings(tmp_path)
    assert (whole.named, whole.labelled, len(whole.sources)) == (3, 1, 3)


def test_depth_without_a_column_is_not_a_recording(tmp_path: Path) -> None:
    touch(tmp_path, "video/a.mp4", "depth/a.mkv", "video/b.mp4", "depth/b.mkv")
    (tmp_path / "labels.csv").write_text("video,label\nvideo/a.mp4,x\n")
    assert {key: files for key, (files, _) in found(tmp_path).items()} == {
        "a": {"video"},
        "b": {"video"},
    }


def test_another_container_of_a_named_video_is_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.avi", "a.mkv", "b.mp4", "b.avi")
    (tmp_path / "labels.csv").write_text("video,label\na.mkv,x\n")
    sources = find_sources(tmp_path)
    assert [(source.key, source.path.name, bool(source.problem)) for source in sources] == [
        ("a", "a.mkv", False),
        ("b", "b.avi", False),
        ("b_2", "b.mp4", True),
    ]


def test_unnamed_recordings_do_not_change_keys_of_named_ones(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.mp4", "one/b-000.mp4")
    (tmp_path / "labels.csv").write_text("video,label\none/a.mp4,x\none/b-000.mp4,y\n")
    before = [source.key for source in find_sources(tmp_path)]
    assert before == ["a", "b-000"]
    touch(tmp_path, "two/a.mp4", "two/b.mp4")
    keys = [source.key for source in find_sources(tmp_path)]
    assert keys[:2] == before
    assert len(set(keys)) == 4
    # Pieces of b would be named b-000 too.
    assert "b" not in keys


def test_a_named_file_is_recognised_by_another_path(tmp_path: Path) -> None:
    touch(tmp_path, "store/a.mp4", "store/b.mp4")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.mp4").symlink_to(tmp_path / "store" / "a.mp4")
    (tmp_path / "labels.csv").write_text("video,label\n./links/../store/a.mp4,x\n")
    assert set(found(tmp_path)) == {"a", "b"}
    (tmp_path / "labels.csv").write_text("video,label\nlinks/a.mp4,x\n")
    assert set(found(tmp_path)) == {"a", "b"}


def test_a_table_in_another_folder_labels_its_files(tmp_path: Path) -> None:
    touch(tmp_path, "films/a.mp4", "films/b.mp4")
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "mine.csv"
    table.write_text("video,label\n../films/a.mp4,x\n")
    assert {key: labels["label"] for key, (_, labels) in found(tmp_path / "films", table).items()} == {
        "a": "x",
        "b": "",
    }


def test_unnamed_frames_count_if_the_table_names_frames(tmp_path: Path) -> None:
    touch(tmp_path, "f/0.png", "g/0.png", "s/rgb/0.png", "s/depth/0.png", "t/rgb/0.png", "t/depth/0.png")
    (tmp_path / "labels.csv").write_text("rgb,rgb_rate,depth,label\nf,12.5,,x\ns/rgb,12.5,s/depth,y\n")
    sources = {source.labels["label"] or source.path.name: source for source in find_sources(tmp_path)}
    assert {name: set(source.files) for name, source in sources.items()} == {
        "x": {"video"},
        "y": {"video", "depth"},
        "g": {"video"},
        "rgb": {"video", "depth"},
    }
    # All rows have the same rate, so the other frames get it.
    assert sources["g"].rates == {"video": 12.5}
    (tmp_path / "labels.csv").write_text("rgb,rgb_rate,depth,label\nf,12.5,,x\ns/rgb,10,s/depth,y\n")
    assert not any(source.rates for source in find_sources(tmp_path)[2:])


def test_kinds_and_stems_follow_the_table(tmp_path: Path) -> None:
    """Folder names and endings of a particular data set: the rows show what they hold."""
    for name in ("p1", "p2", "q3"):
        touch(tmp_path, f"Depth/{name}_depth.mat", f"Inertial/{name}_inertial.mat")
        touch(tmp_path, f"flat/{name}_rgb.mp4", f"flat/{name}_far.mkv")
    rows = ["depth,inertial,label", *(f"Depth/{n}_depth.mat,Inertial/{n}_inertial.mat,x" for n in ("p1", "p2"))]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    (*_, last) = find_sources(tmp_path)
    assert {kind: path.name for kind, path in last.files.items()} == {
        "depth": "q3_depth.mat",
        "inertial": "q3_inertial.mat",
    }
    rows = ["video,depth,label", *(f"flat/{n}_rgb.mp4,flat/{n}_far.mkv,x" for n in ("p1", "p2"))]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    sources = find_sources(tmp_path)
    assert [{kind: path.name for kind, path in source.files.items()} for source in sources[2:]] == [
        {"video": "q3_rgb.mp4", "depth": "q3_far.mkv"}
    ]


def test_a_table_next_to_videos_is_not_a_stream(tmp_path: Path) -> None:
    """Each kind has its own folder, and the videos are next to their table."""
    touch(
        tmp_path,
        "a.mkv",
        "b.mkv",
        "depth/a.mkv",
        "depth/b.mkv",
        "depth/notes.csv",
        "inertial/a.csv",
        "inertial/b.csv",
    )
    (tmp_path / "labels.csv").write_text("video,depth,inertial,label\na.mkv,depth/a.mkv,inertial/a.csv,x\n")
    (tmp_path / "spans.csv").write_text("video,start,end\n")
    first, second = find_sources(tmp_path)
    assert (first.key, second.key) == ("a", "b")
    assert {kind: path.name for kind, path in second.files.items()} == {
        "video": "b.mkv",
        "depth": "b.mkv",
        "inertial": "b.csv",
    }
