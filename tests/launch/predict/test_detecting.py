"""`modalgate detect` over a folder of films: its windows are those of `predict`, its figures those of its windows."""

import json
from pathlib import Path

import numpy as np
import pytest
from modalgate.launch.cli import main
from modalgate.shards.media.container_io import write_video
from modalgate.tasks.metrics.detection import ScoredVideo, detection_tables, recall_threshold
from modalgate.tasks.records import load_result


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Two films of 4 s of noise, at 10 frames per second."""
    folder = tmp_path / "films"
    (folder / "gate").mkdir(parents=True)
    for number, name in enumerate(("gate/one.mp4", "two.mp4")):
        frames = np.random.default_rng(number).integers(0, 255, (40, 40, 48, 3)).astype(np.uint8)
        frames[number * 20 :: 2] //= 4
        write_video(folder / name, frames, 10)
    return folder


def table(path: Path, *lines: str) -> str:
    path.write_text("\n".join(("video,start,end,label", *lines)) + "\n", encoding="utf-8")
    return str(path)


def test_detect_scores_the_windows_of_predict(
    trained_run: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spans = table(tmp_path / "spans.csv", "gate/one.mp4,1.0,2.5,fight", "one,3,3.5,fight", "one,0,1,run", "two,,,")
    figures, lines = tmp_path / "figures.json", tmp_path / "lines.jsonl"
    (trained_run / "config.yaml").write_text("kind: finetune\n", encoding="utf-8")
    assert main(["detect", str(trained_run), str(films), "--spans", spans, "--json", str(figures)]) == 0
    said = capsys.readouterr().out
    assert "frame AP" in said
    assert "false per hour" in said
    found = json.loads(figures.read_text())
    assert {name: held["spans"] for name, held in found["videos"].items()} == {
        "gate/one.mp4": [[1.0, 2.5], [3.0, 3.5]],
        "two.mp4": [],
    }
    assert main(["predict", str(trained_run), str(films / "gate" / "one.mp4"), "--out", str(lines)]) == 0
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    windows = [line for line in told if line["kind"] == "window"]
    starts, _, scores = found["videos"]["gate/one.mp4"]["windows"]
    assert starts == [window["start"] for window in windows]
    assert scores == pytest.approx([window["probabilities"]["fight"] for window in windows])
    videos = [
        ScoredVideo(name, *map(np.array, held["windows"]), tuple(map(tuple, held["spans"])))
        for name, held in found["videos"].items()
    ]
    frames, alarms = detection_tables(videos, 10.0, 0.5)
    assert found["tables"][0]["rows"] == frames.rows
    assert found["tables"][1]["rows"] == alarms.rows
    assert alarms.rows[1][1] == recall_threshold(videos)
    assert load_result(trained_run / "results" / "detect.json").tables[0].columns[3] == "frame AP"


@pytest.mark.parametrize(
    ("lines", "more", "says"),
    [
        (["three,0,1,fight"], [], "line 2: no recording is called 'three'"),
        (["two,2,1,fight"], [], "line 2: start and end must be seconds"),
        (["two,0,x,fight"], [], "line 2: start and end must be seconds"),
        (["two,9,10,fight"], [], "line 2: the span starts at 9 s, 'two.mp4' ends at"),
        (["two,0,1,run"], [], "unknown label in"),
        (["two,,,"], [], "no span of 'fight'"),
        (["two,0,1,fight"], ["--label", "fihgt"], "did you mean 'fight'"),
    ],
)
def test_invalid_event_table_is_rejected(
    trained_run: Path,
    films: Path,
    tmp_path: Path,
    lines: list[str],
    more: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spans = table(tmp_path / "spans.csv", *lines)
    assert main(["detect", str(trained_run / "encoder"), str(films), "--spans", spans, *more]) == 2
    assert says in capsys.readouterr().err


def test_ambiguous_name_and_unreadable_film_are_rejected(
    trained_run: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (films / "one.mp4").write_bytes(b"no film")
    command = ["detect", str(trained_run), str(films), "--spans"]
    assert main([*command, table(tmp_path / "spans.csv", "one,0,1,fight")]) == 2
    assert "2 recordings are called 'one'" in capsys.readouterr().err
    assert main([*command, table(tmp_path / "spans.csv", "gate/one.mp4,0,1,fight")]) == 3
    assert "one.mp4' cannot be read" in capsys.readouterr().err
