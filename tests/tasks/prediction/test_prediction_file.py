"""The output of `predict`, read back as timelines."""

import json
from pathlib import Path

import pytest
from modalgate.shards.errors import DataError, RequestError
from modalgate.tasks.prediction.prediction_file import read_predictions
from modalgate.tasks.records import Timeline


def window(number: int, **more: str) -> str:
    share = number / 1000
    scores, gates = {"calm": 1 - share, "fight": share}, {"rgb": 0.25, "audio": 0.75}
    return json.dumps(more | {"start": number, "end": number + 1, "probabilities": scores, "gates": gates})


def test_windows_become_lines_over_time(tmp_path: Path) -> None:
    path = tmp_path / "street.jsonl"
    alarm = json.dumps({"kind": "alarm", "class": "fight", "on": 3})
    path.write_text("\n".join([window(0), alarm, window(10), window(20), window(30, kind="clip")]) + "\n")
    (timeline,) = read_predictions(path).figures
    assert isinstance(timeline, Timeline)
    assert timeline.title == "street"
    assert timeline.times == [0.5, 10.5, 20.5]
    assert timeline.scores["fight"] == [0, 0.01, 0.02]
    assert timeline.gates == {"rgb": [0.25] * 3, "audio": [0.75] * 3}


def test_recordings_are_separated_and_long_ones_thinned(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    lines = [window(number, file="long.mp4") for number in range(1000)] + [window(3, file="short.mp4")]
    path.write_text("\n".join(lines))
    long, short = read_predictions(path).figures
    assert isinstance(long, Timeline)
    assert isinstance(short, Timeline)
    assert (long.title, short.title, short.times) == ("long.mp4", "short.mp4", [3.5])
    assert len(long.times) == 500
    assert long.times[0] == 1.0
    assert long.scores["fight"][-1] == pytest.approx(0.9985)


def test_files_without_predictions_raise(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with pytest.raises(RequestError, match="no prediction file"):
        read_predictions(path)
    path.write_text('{"kind": "gap"}\n')
    with pytest.raises(RequestError, match="no windows"):
        read_predictions(path)
    path.write_text(window(1) + '\n{"probabilities": \n')
    with pytest.raises(DataError, match="line 2"):
        read_predictions(path)
