"""`auto`: how the time budget is divided, and all steps on a folder of small films."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from modalgate.launch.cli import main
from modalgate.launch.whole_way.auto import FEWEST_STEPS, plan_steps
from modalgate.shards.media.container_io import write_video


def test_all_steps_run_if_time_allows():
    plan = plan_steps(300, 5, 1.0, 6 * 300.0)
    assert (plan.steps, plan.folds, plan.short) == (300, 5, False)


def test_fewer_steps_then_fewer_folds():
    plan = plan_steps(300, 5, 1.0, 6 * 150.0)
    assert (plan.steps, plan.folds) == (150, 5)
    plan = plan_steps(300, 5, 1.0, 4 * 120.0)
    assert (plan.steps, plan.folds, plan.short) == (120, 3, False)


def test_too_little_time_is_reported_and_still_trains():
    plan = plan_steps(300, 5, 10.0, 60.0)
    assert (plan.steps, plan.folds, plan.short) == (FEWEST_STEPS, 2, True)


def test_one_split_has_no_final_model():
    assert plan_steps(300, 1, 1.0, 200.0).steps == 200


def bright_and_dark(folder: Path, clips: int = 24) -> Path:
    """Films of two kinds with different mean brightness, a third of them without a label."""
    generator, rows = np.random.default_rng(0), []
    folder.mkdir()
    for number in range(clips):
        level = 200 if number % 2 else 40
        frames = generator.integers(level - 20, level + 20, (12, 32, 32, 3)).astype(np.uint8)
        write_video(folder / f"c{number:02d}.mp4", frames, 8.0)
        if number % 3:
            rows.append({"video": f"c{number:02d}.mp4", "kind": "bright" if number % 2 else "dark"})
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["video", "kind"])
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.mark.slow
def test_a_folder_becomes_a_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("modalgate.launch.whole_way.auto.FEWEST_STEPS", 60)
    # A planted pace: on every machine the fewest steps are trained.
    for module in ("jobs.pretraining", "finetune.finetuning"):
        monkeypatch.setattr(f"modalgate.launch.{module}.seconds_per_step", lambda *_: 60.0)
    folder, out = bright_and_dark(tmp_path / "films"), tmp_path / "out"
    command = [
        "auto",
        str(folder),
        "--out",
        str(out),
        "--minutes",
        "1",
        "--workers",
        "0",
        "--json",
        str(tmp_path / "j"),
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "$ modalgate pack" in printed
    assert "$ modalgate finetune" in printed
    assert (out / "report.html").is_file()
    assert (out / "classifier" / "encoder.json").is_file()
    assert json.loads((out / "finetune.json").read_text())["metrics"]["accuracy"] > 0.8
    assert json.loads((tmp_path / "j").read_text())["label"] == "kind"
    # Again: nothing is trained twice.
    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out


def test_invalid_size_and_empty_folder_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["auto", str(tmp_path), "--preset", "tinny"]) == 2
    assert "tiny" in capsys.readouterr().err
    assert main(["auto", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
