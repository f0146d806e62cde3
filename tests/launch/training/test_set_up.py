"""Errors of a training before its first step leave no new run, and an old one as it was."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training import set_up
from modalgate.launch.training.checkpoint import steps_done
from modalgate.launch.training.loop import train
from modalgate.shards.errors import DataError, RequestError
from torch import Tensor

from ..given.regression import Regression, ToyBatch, ToyStream, settings


def test_only_more_steps_are_allowed_on_resume(tmp_path: Path) -> None:
    run, config = tmp_path / "run", {"seed": 0, "train": {"steps": 12, "learning_rate": 0.1}}
    train(Regression(), ToyStream(), settings(), run, tracker_mode="disabled", settings=config)
    other = {"seed": 1, "train": {"steps": 14, "learning_rate": 0.1}}
    with pytest.raises(RequestError, match="seed was 0, is 1"):
        train(Regression(), ToyStream(), settings(), run, resume=True, tracker_mode="disabled", settings=other)
    more = {"seed": 0, "train": {"steps": 14, "learning_rate": 0.1}}
    train(Regression(), ToyStream(), settings(steps=14), run, resume=True, tracker_mode="disabled", settings=more)
    assert [line["step"] for line in read_metrics(run)] == [4, 8, 12, 14]


def test_occupied_run_folder_is_rejected(tmp_path: Path) -> None:
    train(Regression(), ToyStream(), settings(steps=1), tmp_path / "run", tracker_mode="disabled")
    with pytest.raises(RequestError, match="already holds a run: choose another name= or add --resume"):
        train(Regression(), ToyStream(), settings(steps=1), tmp_path / "run", tracker_mode="disabled")


def test_a_failure_before_the_first_step_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="too small"):
        train(Refusing(), ToyStream(), settings(), tmp_path / "run", tracker_mode="disabled")
    assert not (tmp_path / "run").exists()


def test_a_failure_while_opening_keeps_a_checkpoint_of_step_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(ToyStream):
        """A signal comes before the first batch and ends the loader's workers."""

        def train(self, start: int) -> Iterator[ToyBatch]:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker is killed by signal")
            yield from super().train(start)

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(Regression(), Stopped(), settings(), run, tracker_mode="disabled")
    assert (run / "checkpoints" / "step-0").is_dir()
    monkeypatch.setattr(torch, "use_deterministic_algorithms", None)
    with pytest.raises(TypeError):
        train(Regression(), ToyStream(), settings(deterministic=True), run, resume=True, tracker_mode="disabled")
    assert (run / "checkpoints" / "step-0").is_dir()


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but the record of its starts."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != "environment.json")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


class Refusing(Regression):
    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        raise RequestError("the batch is too small")


@pytest.mark.parametrize("checkpoints", ["deleted", "damaged", "whole"])
def test_a_resume_that_fails_before_its_first_step_leaves_the_run_as_it_was(tmp_path: Path, checkpoints: str) -> None:
    run, config = tmp_path / "run", {"train": {"steps": 12}}
    train(Regression(), ToyStream(), settings(), run, tracker_mode="disabled", settings=config)
    (run / "encoder").mkdir()
    (run / "encoder" / "encoder.safetensors").write_bytes(b"weights")
    if checkpoints == "deleted":
        shutil.rmtree(run / "checkpoints")
    if checkpoints == "damaged":
        for path in (run / "checkpoints").glob("*/state.json"):
            path.unlink()
    before = contents(run)
    longer = {"train": {"steps": 20}}
    with pytest.raises((RequestError, DataError)):
        train(Refusing(), ToyStream(), settings(steps=20), run, resume=True, tracker_mode="disabled", settings=longer)
    assert contents(run) == before


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("failing", ["RunState", "record_environment", "Boards", "read_metrics", "Heartbeat"])
def test_a_failure_while_opening_leaves_no_occupied_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, existed: bool
) -> None:
    def out_of_memory(*arguments: object) -> None:
        raise OSError("not enough memory")

    run = tmp_path / "run"
    if existed:
        run.mkdir()
    with monkeypatch.context() as patched:
        if failing == "read_metrics":
            patched.setattr(ToyStream, "train", out_of_memory)
        else:
            patched.setattr(set_up, failing, out_of_memory)
        with pytest.raises(OSError, match="not enough memory"):
            train(Regression(), ToyStream(), settings(), run, tracker_mode="disabled")
    assert run.is_dir() == existed
    assert not list(tmp_path.rglob("*.yaml"))
    train(Regression(), ToyStream(), settings(steps=1), run, tracker_mode="disabled")


def test_damaged_checkpoints_are_named_and_only_deleting_them_starts_from_step_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(Regression(), ToyStream(), settings(keep=9, best=None), run, tracker_mode="disabled")
    logged = (run / "metrics.jsonl").read_bytes()
    cut = run / "checkpoints" / "step-12" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    train(Regression(), ToyStream(), settings(keep=9), run, resume=True, tracker_mode="disabled")
    assert "warning: checkpoint step-12 of" in (said := capsys.readouterr().err)
    assert "resumes from step-10" in said
    for path in (run / "checkpoints").glob("step-*/state.json"):
        path.write_bytes(b"{")
    logged = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"every checkpoint in .* is damaged \(step-12, step-10, step-5\): restore"):
        train(Regression(), ToyStream(), settings(), run, resume=True, tracker_mode="disabled")
    assert (run / "metrics.jsonl").read_bytes() == logged
    shutil.rmtree(run / "checkpoints")
    train(Regression(), ToyStream(), settings(steps=14), run, resume=True, tracker_mode="disabled")
    assert "has no checkpoint: the training starts from step 0" in capsys.readouterr().err
    assert [line["step"] for line in read_metrics(run)] == [4, 8, 12, 14]


def test_a_resume_with_fewer_steps_than_are_done_keeps_them_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(Regression(), ToyStream(), settings(), run, tracker_mode="disabled")
    train(Regression(), ToyStream(), settings(steps=8), run, resume=True, tracker_mode="disabled")
    assert "already has 12 steps, more than train.steps=8: no further training" in capsys.readouterr().err
    assert [line["step"] for line in read_metrics(run)] == [4, 8, 12]
    assert steps_done(run) == 12


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is right on a GPU")
def test_fp16_without_a_gpu_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="fp16 needs a GPU"):
        train(Regression(), ToyStream(), settings(precision="fp16"), tmp_path / "run", tracker_mode="disabled")
    assert not (tmp_path / "run").exists()
