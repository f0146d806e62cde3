"""A world on disk: media that match the renderer, labels that match the scenes, and no partial folder."""

import csv
import json

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.media.container_io import FrameReader, iterate_frames, probe
from modalgate.shards.media.soundtrack import read_sound
from modalgate.shards.worlds.ceilings import ceilings
from modalgate.shards.worlds.factors import PRESETS, Law
from modalgate.shards.worlds.render import render
from modalgate.shards.worlds.write_world import split_ranges, write_world

from .written_scene import scene_from_json

CLIPS = 14


def read_labels(folder):
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_scenes(folder):
    return [scene_from_json(line) for line in (folder / "scenes.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small corrupted world with a flow sensor, the returned facts, and the reported progress."""
    folder, told = tmp_path_factory.mktemp("world") / "out", []
    facts = write_world(
        folder, "impact12", CLIPS, 5, rho=0.4, sensor_flow=True, workers=1, progress=lambda *now: told.append(now)
    )
    return folder, facts, told


def test_pictures_are_within_two_levels(world):
    folder, *_ = world
    for scene, row in list(zip(read_scenes(folder), read_labels(folder), strict=True))[:6]:
        frames = [(time, FrameReader().read(frame)) for time, frame in iterate_frames(folder / row["video"])]
        assert [time for time, _ in frames] == pytest.approx(np.arange(48) / 16, abs=0.001)
        error = np.abs(np.stack([frame for _, frame in frames]).astype(int) - render(scene).rgb)
        assert error.max() <= 2
        assert error.mean() < 0.6
        facts = probe(folder / row["video"])
        assert (facts.width, facts.height, facts.fps, facts.pixel_format) == (48, 48, 16, "yuv444p")


def test_depth_is_exact_and_in_millimetres(world):
    folder, *_ = world
    for scene, row in list(zip(read_scenes(folder), read_labels(folder), strict=True))[:4]:
        frames = np.stack([FrameReader("gray16le").read(f) for _, f in iterate_frames(folder / row["depth"])])
        assert np.array_equal(frames, render(scene).depth)


def test_sound_is_in_the_video_exact_to_16_bits_and_in_step(world):
    folder, *_ = world
    for scene, row in zip(read_scenes(folder), read_labels(folder), strict=True):
        start, sound = read_sound(folder / row["video"], 8000)
        first_frame = next(iter(iterate_frames(folder / row["video"])))[0]
        assert start == first_frame == 0
        assert len(sound) == 24000
        assert np.abs(sound - render(scene).audio).max() < 1.5 / 32768


def test_sensor_flow_is_kept_in_half_precision(world):
    folder, *_ = world
    scene, row = read_scenes(folder)[3], read_labels(folder)[3]
    flow = np.load(folder / row["flow"], allow_pickle=False)
    assert (flow.shape, flow.dtype) == ((48, 2, 48, 48), np.float16)
    assert flow == pytest.approx(render(scene).flow, abs=0.005)


def test_labels_match_the_scenes(world):
    folder, *_ = world
    rows, scenes, chosen = read_labels(folder), read_scenes(folder), PRESETS["impact12"]
    assert list(rows[0]) == ["video", "depth", "flow", "label", "split", "group", "bits", "z", "q"]
    assert len({row["group"] for row in rows}) == CLIPS
    for scene, row in zip(scenes, rows, strict=True):
        assert row["label"] == chosen.classes[scene.label]
        bits = {word[0]: int(word[1]) for word in row["bits"].split()}
        assert tuple(bits.values()) == chosen.table[scene.label]
        assert row["z"] == " ".join(f"{name}{value}" for name, value in scene.z.items())
        assert row["q"] == row["z"], "a hint of quality 1 tells all"
        assert scene.graded == (row["split"] == "pretrain")
        assert all((folder / row[kind]).is_file() for kind in ("video", "depth", "flow"))
    assert any(any(scene.z.values()) for scene in scenes)


def test_world_json_holds_law_splits_and_ceilings(world):
    folder, facts, told = world
    assert json.loads((folder / "world.json").read_text(encoding="utf-8")) == facts
    assert facts["law"] == {"name": "independent", "rho": 0.4, "quality": 1.0}
    assert facts["flow"] == "sensor"
    assert facts["ceilings"] == ceilings("impact12", Law(rho=0.4))
    assert facts["splits"] == {"pretrain": [0, 7], "train": [7, 11], "val": [11, 12], "test": [12, 14]}
    assert told[-1] == (CLIPS, CLIPS)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out"]


def test_processes_write_the_same_world_with_derived_flow(tmp_path):
    (tmp_path / "two").mkdir()
    facts = [
        write_world(tmp_path / name, "strike", 16, 1, workers=workers) for name, workers in (("one", 1), ("two", 2))
    ]
    assert facts[0] == facts[1]
    assert facts[0]["flow"] == "derived"
    assert facts[0]["ceilings"]["flow+audio"]["blind"] == 1
    assert (tmp_path / "one" / "scenes.jsonl").read_bytes() == (tmp_path / "two" / "scenes.jsonl").read_bytes()
    rows = read_labels(tmp_path / "one")
    assert rows == read_labels(tmp_path / "two")
    assert "flow" not in rows[0]
    assert not (tmp_path / "one" / "flow").exists()
    for row in rows:
        first, second = (
            [FrameReader().read(frame).tobytes() for _, frame in iterate_frames(tmp_path / name / row["video"])]
            for name in ("one", "two")
        )
        assert first == second


def test_shares_name_the_splits_and_violence_is_a_second_label(tmp_path):
    shares = {"pretrain": 6, "train": 3, "test": 4}
    facts = write_world(tmp_path / "out", "melee", 13, shares=shares, workers=1)
    assert facts["splits"] == {"pretrain": [0, 6], "train": [6, 9], "test": [9, 13]}
    rows = read_labels(tmp_path / "out")
    assert list(rows[0]) == ["video", "depth", "label", "violence", "split", "group", "bits", "z", "q"]
    for row in rows:
        signs = sum(int(bit[1]) for bit in row["bits"].split())
        assert row["violence"] == ("violent" if signs >= 2 else "calm")
    with pytest.raises(RequestError, match="fill 3 splits: give 5 or more"):
        write_world(tmp_path / "few", "melee", 4, shares=shares)


def test_splits_are_disjoint_and_in_proportion():
    assert {name: len(ids) for name, ids in split_ranges(8200).items()} == {
        "pretrain": 4000,
        "train": 2400,
        "val": 600,
        "test": 1200,
    }
    for clips in range(14, 300):
        parts = split_ranges(clips).values()
        assert all(parts)
        ids = [clip for part in parts for clip in part]
        assert ids == list(range(clips))


def test_failure_leaves_nothing_behind(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path / "out", "duet", 40, workers=workers, progress=interrupt)
        assert list(tmp_path.iterdir()) == []


def test_a_stale_partial_folder_is_replaced(tmp_path):
    (tmp_path / ".out.partial" / "video").mkdir(parents=True)
    (tmp_path / ".out.partial" / "video" / "old.mkv").write_bytes(b"")
    write_world(tmp_path / "out", "solo", 14, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(list((tmp_path / "out" / "video").iterdir())) == 14


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"preset": "impct12"}, "unknown preset 'impct12': did you mean 'impact12'"),
        ({"clips": 13}, "13 clips are too few"),
        ({"rho": 1.2}, r"rho is 1\.2"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_bad_requests_write_nothing(tmp_path, changed, message):
    with pytest.raises(RequestError, match=message):
        write_world(**({"out": tmp_path / "out", "preset": "duet", "clips": 14} | changed))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_unchanged(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="already holds something"):
        write_world(tmp_path, "duet", 14, workers=1)
    with pytest.raises(RequestError, match="already holds something"):
        write_world(tmp_path / "mine.txt", "duet", 14, workers=1)
    with pytest.raises(RequestError, match="cannot write"):
        write_world(tmp_path / "mine.txt" / "out", "duet", 14, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
