"""Errors of a training before its first step leave no run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.loop import train
from modalgate.shards.errors import RequestError
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
    class Refusing(Regression):
        def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
            raise RequestError("the batch is too small")

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is right on a GPU")
def test_fp16_without_a_gpu_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="fp16 needs a GPU"):
        train(Regression(), ToyStream(), settings(precision="fp16"), tmp_path / "run", tracker_mode="disabled")
    assert not (tmp_path / "run").exists()
