"""The data verbs from the command line, on a corpus they make themselves."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from modalgate.launch import cli
from modalgate.shards.index.table import load_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.modality import MODALITIES


def test_world_writes_media_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "corpus", tmp_path / "world.json"
    arguments = ["world", str(out), "--preset", "strike", "--clips", "14", "--workers", "1", "--json", str(figures)]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "ceiling" in captured.out or "best accuracy" in captured.out
    assert "world strike 14/14" in captured.err
    assert len(list((out / "video").glob("*.mkv"))) == 14
    assert (out / "labels.csv").is_file()
    assert json.loads(figures.read_text())["clips"] == 14
    assert cli.main(arguments) == 2
    assert "already holds something" in capsys.readouterr().err


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Four short films with a label, a broken one, and depth as frames."""
    root = tmp_path / "in"
    (root / "video").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = ["video,depth,label"]
    for number in range(4):
        frames = generator.integers(0, 255, (10, 32, 48, 3)).astype(np.uint8)
        sound = np.zeros(16000, np.float32) if number == 0 else None
        write_video(root / "video" / f"c{number}.mkv", frames, 10, sound=sound)
        (root / "depth" / f"c{number}").mkdir(parents=True)
        for place in range(10):
            depth = generator.integers(500, 4000, (32, 48)).astype(np.uint16)
            assert cv2.imwrite(str(root / "depth" / f"c{number}" / f"{place}.png"), depth)
        lines.append(f"video/c{number}.mkv,depth/c{number},{'ab'[number % 2]}")
    (root / "video" / "cut.mkv").write_bytes((root / "video" / "c0.mkv").read_bytes()[:900])
    (root / "labels.csv").write_text("\n".join([*lines, "video/cut.mkv,,a"]) + "\n")
    return root


def test_pack_inspect_verify(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    command = ["pack", str(recordings), str(out), "--modalities", "rgb,depth,audio", "--size", "32", "--fps", "10"]
    command += ["--workers", "1", "--samples-per-shard", "2", "--rate", "depth=10", "--json", str(figures)]
    assert cli.main(command) == 3
    captured = capsys.readouterr()
    assert "1 recording rejected" in captured.out
    assert "cut.mkv" in captured.out
    assert "raise --max-rejected" in captured.err
    assert cli.main([*command, "--max-rejected", "0.5"]) == 0
    captured = capsys.readouterr()
    assert "pack 5/5" in captured.err
    assert "4 clips" in captured.out
    assert "1 clips have a silent sound track" in captured.out
    assert "bits of label" in captured.out
    assert "cut.mkv" in captured.out
    packed = json.loads(figures.read_text())
    assert {row["name"]: row["clips"] for row in packed["modalities"]} == {"rgb": 4, "depth": 4, "audio": 0}
    assert [row["present"]["depth"] for row in packed["shards"]] == [2, 2]
    assert (packed["silent"], packed["clips"]) == (1, 4)
    assert cli.main([*command, "--max-rejected", "0.5"]) == 0
    assert cli.main([*command, "--size", "16"]) == 2
    assert "already holds shards with size 32, not 16" in capsys.readouterr().err
    sheet, seen = tmp_path / "sheet.png", tmp_path / "seen.json"
    assert cli.main(["inspect", str(out), "--png", str(sheet), "--json", str(seen)]) == 0
    assert packed.pop("recordings") == {"labelled": 5, "unlabelled": 0, "rejected": 1, "left_out": 0}
    assert json.loads(seen.read_text()) == packed
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    assert cli.main(["verify", str(out)]) == 0
    shard = out / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    capsys.readouterr()
    assert cli.main(["verify", str(out), "--json", str(seen)]) == 3
    assert "shard-000001.tar" in capsys.readouterr().out
    assert json.loads(seen.read_text())["problems"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rate", "dept=3"], "unknown name in --rate 'dept': did you mean 'depth'"),
        (["--region", "0.5,0.5"], "--region 0.5,0.5: give left, top, width and height as shares of the picture"),
        (["--region", "0.5,0,0.6,1"], "region 0.5,0,0.6,1 is not within the picture: give left, top"),
        (["--rate", "depth=fast"], "--rate depth=fast: give a number of Hz above 0"),
        (["--engine", "loca"], "unknown engine 'loca': did you mean 'local'"),
    ],
)
def test_mistakes_in_pack_arguments_are_reported(
    recordings: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    assert cli.main(["pack", str(recordings), str(recordings.parent / "out"), *given]) == 2
    assert said in capsys.readouterr().err
    assert not (recordings.parent / "out").exists()


def test_recordings_without_a_label_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five films, two of them in a table, one damaged, and a sound file without a film."""
    root, figures = tmp_path / "source", tmp_path / "packed.json"
    (root / "video").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(5):
        write_video(root / "video" / f"c{number}.mp4", generator.integers(0, 255, (8, 32, 32, 3)).astype(np.uint8), 8)
    (root / "video" / "broken.mp4").write_bytes(b"no film")
    (root / "lonely.wav").write_bytes(b"no sound")
    (root / "labels.csv").write_text("video,label,group\nvideo/c0.mp4,fight,a\nvideo/c1.mp4,calm,b\n")
    small = ["--modalities", "rgb", "--size", "32", "--fps", "8", "--workers", "1", "--max-rejected", "0.5"]
    command = ["pack", str(root), str(tmp_path / "all"), *small]
    assert cli.main([*command, "--json", str(figures)]) == 0
    packed = json.loads(figures.read_text())
    assert packed["recordings"] == {"labelled": 2, "unlabelled": 4, "rejected": 1, "left_out": 1}
    # No class of clips without one.
    assert packed["labels"]["label"] == {"fight": 1, "calm": 1}
    assert (packed["clips"], packed["entropy"]) == (5, 1.0)
    index = load_index(tmp_path / "all")
    assert sorted(index.column("label")) == ["", "", "", "calm", "fight"]
    assert sorted(index.column("group")) == ["a", "b", "c2", "c3", "c4"]
    assert cli.main(["verify", str(tmp_path / "all")]) == 0
    assert cli.main(command) == 0, "a finished packing is not changed"

    few = ["pack", str(root), str(tmp_path / "few"), *small]
    assert cli.main([*few, "--labelled-only", "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["recordings"] == {
        "labelled": 2,
        "unlabelled": 0,
        "rejected": 0,
        "left_out": 5,
    }
    # As a version wrote it that packed the table alone.
    capsys.readouterr()
    assert cli.main(few) == 2
    said = capsys.readouterr().err
    assert "--labelled-only" in said
    assert "4 more" in said
    assert cli.main([*few, "--labelled-only"]) == 0
    (root / "labels.csv").unlink()
    assert cli.main(["pack", str(root), str(tmp_path / "none"), *small, "--labelled-only"]) == 2
    assert "labels.csv" in capsys.readouterr().err


def test_declared_modalities_and_changed_recordings_from_the_command_line(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "radar").mkdir()
    for number in range(4):
        np.save(recordings / "radar" / f"c{number}.npy", np.full((20, 2), number, np.float32))
    (recordings / "labels.csv").unlink()
    (recordings / "video" / "cut.mkv").unlink()
    out = tmp_path / "out"
    command = ["pack", str(recordings), str(out), "--modalities", "rgb,radar", "--size", "32", "--fps", "10"]
    command += ["--workers", "1", "--declare", "radar=signal:2@20"]
    before = dict(MODALITIES)
    try:
        assert cli.main(command) == 0
        index = load_index(out)
        assert sum(shard.present["radar"] for shard in index.shards) == 4
        np.save(recordings / "radar" / "c2.npy", np.full((20, 2), 9, np.float32))
        capsys.readouterr()
        MODALITIES.pop("radar")
        assert cli.main(command) == 2
        assert "add --repack" in capsys.readouterr().err
        assert cli.main([*command, "--repack"]) == 0
        assert load_index(out).shards != index.shards
    finally:
        # Reading the shards declares the modality again, so this comes last.
        MODALITIES.clear()
        MODALITIES.update(before)
