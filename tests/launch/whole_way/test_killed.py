"""A run killed with `kill -9` at a random step and resumed ends with the same result, bit for bit."""

import random
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import latest_checkpoint, load_checkpoint
from safetensors.torch import load_file

Launch = Callable[..., list[int]]

STEPS = 12


def assert_same_end(one: Path, two: Path) -> None:
    """Weights, buffers, optimiser and generators after the last step, the exported encoder, and every logged loss."""
    first, second = (latest_checkpoint(run) for run in (one, two))
    assert first is not None
    assert second is not None
    (step, weights, state), (other_step, other_weights, other_state) = load_checkpoint(first), load_checkpoint(second)
    assert step == other_step == STEPS
    for name, value in weights.items():
        assert torch.equal(value, other_weights[name]), name
    for number, moments in state["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, other_state["optimizer"]["state"][number][name]), name
    for here, there in zip(state["random"], other_state["random"], strict=True):
        assert torch.equal(here["torch"], there["torch"])
    exported, other_exported = (load_file(run / "encoder" / "encoder.safetensors") for run in (one, two))
    assert all(torch.equal(value, other_exported[name]) for name, value in exported.items())
    averages = {name.removeprefix("backbone."): value for name, value in state["average"].items()}
    assert all(torch.equal(value, averages[name]) for name, value in exported.items() if name in averages)
    assert set(exported) & set(averages)
    losses, other_losses = ([line["loss"] for line in read_metrics(run)] for run in (one, two))
    assert losses == other_losses
    assert len(losses) == STEPS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_config: str, launch: Launch) -> Callable[[int, str], Path]:
    """`whole(world, strategy)`: an uninterrupted run without workers, made once."""
    out = tmp_path_factory.mktemp("whole")

    @cache
    def run(world: int, strategy: str) -> Path:
        name, log = f"{strategy}-{world}", out / "log"
        command = ["pretrain", tiny_config, f"out={out}", f"name={name}", f"train.strategy={strategy}"]
        assert launch(command, world, log=str(log)) == [0] * world, log.read_text()
        return out / name

    return run


@pytest.mark.parametrize(
    ("world", "workers", "resumed_workers", "strategy"),
    [
        (1, 0, 0, "ddp"),
        pytest.param(2, 0, 0, "ddp", marks=pytest.mark.slow),
        pytest.param(1, 1, 2, "ddp", marks=pytest.mark.slow),
        pytest.param(2, 0, 0, "fsdp", marks=pytest.mark.slow),
        pytest.param(1, 2, 0, "ddp", marks=pytest.mark.slow),
        pytest.param(2, 1, 1, "ddp", marks=pytest.mark.slow),
        pytest.param(2, 2, 1, "ddp", marks=pytest.mark.slow),
    ],
)
def test_run_killed_at_a_random_step_ends_with_the_same_weights(
    tmp_path: Path,
    tiny_config: str,
    launch: Launch,
    whole: Callable[[int, str], Path],
    world: int,
    workers: int,
    resumed_workers: int,
    strategy: str,
) -> None:
    def command(count: int, *more: str) -> list[str]:
        settings = [f"out={tmp_path}", "name=cut", f"data.workers={count}", f"train.strategy={strategy}"]
        return ["pretrain", tiny_config, *settings, *more]

    run, log = tmp_path / "cut", tmp_path / "log"
    kill = random.randint(4, STEPS - 1)  # after the first checkpoint; before it a run starts anew
    assert launch(command(workers), world, kill=kill, run=str(run)) == [-signal.SIGKILL] * world
    assert not (run / "encoder").exists()
    again = launch(command(resumed_workers, "--resume"), world, log=str(log))
    assert again == [0] * world, f"killed after step {kill}: {log.read_text()}"
    assert_same_end(whole(world, strategy), run)


@pytest.mark.slow
def test_run_killed_repeatedly_ends_with_the_same_weights(
    tmp_path: Path, tiny_config: str, launch: Launch, whole: Callable[[int, str], Path]
) -> None:
    command = ["pretrain", tiny_config, f"out={tmp_path}"]
    for kill in (1, 2, 4, 5, 7, 11):
        resume = ["--resume"] if (tmp_path / "cut" / "config.yaml").exists() else []
        statuses = launch([*command, "name=cut", *resume], kill=kill, run=str(tmp_path / "cut"))
        assert statuses == [-signal.SIGKILL]
    assert launch([*command, "name=cut", "--resume"]) == [0]
    assert_same_end(whole(1, "ddp"), tmp_path / "cut")
