"""`predict` on recordings good and bad, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from modalgate.launch.cli import main
from modalgate.shards.media import write_video


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Six seconds of noise, so that every second takes as many bytes."""
    pictures = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3)).astype(np.uint8)
    path = tmp_path / "film.mkv"
    write_video(path, pictures, 10)
    return path


def windows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_go_to_the_file_or_to_standard_output(
    trained_run: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(film)]) == 0
    said = windows(capsys.readouterr().out)
    assert main(["predict", str(trained_run), str(film), "--out", str(tmp_path / "lines.jsonl")]) == 0
    assert not any(line.startswith("{") for line in capsys.readouterr().out.splitlines())
    assert windows((tmp_path / "lines.jsonl").read_text()) == said
    assert main(["predict", str(trained_run), str(film), "--out", str(tmp_path / "no" / "lines.jsonl")]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_film_cut_off_is_predicted_up_to_the_cut(
    trained_run: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = film.stat().st_size
    film.write_bytes(film.read_bytes()[: whole // 2])
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(film)]) == 3
    said = capsys.readouterr()
    found = windows(said.out)
    assert found
    assert found[0]["start"] == 0
    assert 1.5 < float(str(found[-1]["end"])) < 4.5
    assert "cut short" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"this is no film\n" * 50])
def test_what_is_no_film_is_one_line(
    content: bytes, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(path)]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "text.mp4" in said.err
    assert said.err.count("\n") == 1


def test_one_short_film_is_one_window(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "short.mkv", np.zeros((3, 32, 32, 3), np.uint8), 10)
    capsys.readouterr()
    assert main(["predict", str(trained_run), str(tmp_path / "short.mkv")]) == 0
    (window,) = windows(capsys.readouterr().out)
    assert (window["start"], window["end"], window["present"]) == (0, 0.3, ["rgb"])
