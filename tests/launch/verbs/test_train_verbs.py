"""How the training commands resume a run: by a flag, automatically, with a changed setting, or not at all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from modalgate.launch.runs.metric_log import read_metrics

Launch = Callable[..., list[int]]


def test_resume_auto_starts_resumes_and_keeps_a_finished_run(
    tmp_path: Path, tiny_config: str, launch: Launch
) -> None:
    command = ["pretrain", tiny_config, f"out={tmp_path}", "name=run", "train.steps=4", "--resume", "auto"]
    assert launch(command) == [0]
    exported = (tmp_path / "run" / "encoder" / "encoder.safetensors").read_bytes()
    assert launch([*command, "train.steps=6"]) == [0]
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    longer = (tmp_path / "run" / "encoder" / "encoder.safetensors").read_bytes()
    assert longer != exported
    assert launch([*command, "train.steps=6"]) == [0]
    assert (tmp_path / "run" / "encoder" / "encoder.safetensors").read_bytes() == longer


@pytest.mark.slow
def test_changed_setting_is_rejected_unless_accepted(tmp_path: Path, tiny_config: str, launch: Launch) -> None:
    command, log = ["pretrain", tiny_config, f"out={tmp_path}", "name=run"], tmp_path / "log"
    assert launch([*command, "train.steps=2"]) == [0]
    changed = [*command, "train.steps=3", "train.weight_decay=0.5", "seed=1"]
    for arguments, says in (
        (changed, "already holds a run: choose another name= or add --resume"),
        (
            [*changed, "--resume"],
            "seed was 0, is 1; train.weight_decay was 0.05, is 0.5; undo the changes, accept them",
        ),
        ([*changed, "--resume", "--accept", "seed"], "other settings: train.weight_decay was 0.05, is 0.5;"),
        ([*changed, "--resume", "--accept", "sed"], "unknown changed setting to --accept 'sed'"),
        ([*changed, "--accept", "seed"], "--accept is for a run that is resumed: add --resume"),
        ([*changed, "--resume=atuo"], "unknown value of --resume 'atuo': did you mean 'auto'?"),
    ):
        log.unlink(missing_ok=True)
        assert launch(arguments, log=str(log)) == [2]
        line = log.read_text().splitlines()[-1]
        assert line.startswith("error: ")
        assert says in line
    assert launch([*changed, "--resume", "--accept", "seed", "--accept", "train.weight_decay"]) == [0]
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (stored["seed"], stored["train"]["weight_decay"], stored["train"]["steps"]) == (1, 0.5, 3)


@pytest.mark.slow
def test_interrupted_run_prints_its_progress_and_the_resume_command(
    tmp_path: Path, tiny_config: str, launch: Launch
) -> None:
    log = tmp_path / "log"
    command = ["pretrain", tiny_config, f"out={tmp_path}", "name=run", "train.steps=100000", "train.keep=1"]
    run = tmp_path / "run"
    assert launch([*command, "--resume", "auto"], log=str(log), kill=2, run=str(run), signal="SIGTERM") == [130]
    said = log.read_text()
    step = max(line["step"] for line in read_metrics(run))
    assert "interrupted; mean of 1 steps" in said
    assert f"checkpoint: {run}/checkpoints/step-{step}\n" in said
    assert f"next: modalgate {' '.join(command)} --resume\n" in said
    assert launch([*command[:-2], "train.steps=1", "--resume"], log=str(log)) == [0]
