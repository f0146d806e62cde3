"""`modalgate compare` from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from modalgate.launch.cli import main
from modalgate.tasks.evaluation.scores import Scores, save_scores


def run_folder(folder: Path, wrong: int) -> Path:
    labels = np.arange(12) % 2
    probabilities = np.where(labels[:, None] == np.arange(2), 0.9, 0.1).astype(np.float32)
    probabilities[:wrong] = probabilities[:wrong, ::-1]
    keys = [f"clip{number}" for number in range(12)]
    scores = Scores(probabilities, np.ones((12, 1), np.float32), labels, keys)
    save_scores(scores, keys, ["calm", "fight"], folder / "results" / "scores.safetensors")
    (folder / "config.yaml").write_text("kind: finetune\n", encoding="utf-8")
    return folder


def test_compare_prints_writes_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run_folder(tmp_path / name, wrong)) for name, wrong in (("plain", 6), ("gated", 0))]
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    assert main(["compare", *runs, "--out", str(page), "--json", str(figures)]) == 0
    assert "gated - plain" in capsys.readouterr().out
    (pair,) = json.loads(figures.read_text())["pairs"]
    assert pair["accuracy"]["value"] == pytest.approx(0.5)
    assert pair["p"] == pytest.approx(2 / 2**6)
    assert "Comparison of runs" in page.read_text()


def test_comparing_one_run_is_rejected_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run_folder(tmp_path / "plain", 0))]) == 2
    error = capsys.readouterr().err
    assert "at least two runs" in error
    assert error.count("\n") == 1
