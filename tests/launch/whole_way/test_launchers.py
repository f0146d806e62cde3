"""Real launchers of several processes, on the CPU."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from modalgate.launch.runs.environment import read_environment
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import latest_checkpoint, load_checkpoint

BIN = Path(sys.executable).parent
TORCHRUN = ("torchrun", "--nproc-per-node", "2")
# `--multi_gpu` starts several processes on one machine; without a GPU they run on its CPU.
ACCELERATE = ("accelerate", "launch", "--multi_gpu", "--num_processes", "2")
ACCELERATE_CPU = ("accelerate", "launch", "--cpu", "--num_processes", "2")


def command(launcher: tuple[str, ...], *arguments: str) -> list[str]:
    program, *options = launcher
    return [str(BIN / program), *options, "-m", "modalgate.launch.cli", "pretrain", *arguments]


def start(launcher: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(launcher, *arguments), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_accelerate_launch_trains_one_run_in_two_processes(tmp_path: Path, tiny_config: str) -> None:
    done = start(ACCELERATE, tiny_config, f"out={tmp_path}", "name=run", "train.steps=4", "probe=null")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: modalgate probe") == 1  # one process speaks for both
    run = tmp_path / "run"
    assert {entry["processes"] for entry in read_environment(run)} == {2}
    assert [path.parent for path in tmp_path.rglob("metrics.jsonl")] == [run]
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4]
    assert (run / "encoder" / "encoder.safetensors").is_file()
    folder = latest_checkpoint(run)
    assert folder is not None
    step, _, state = load_checkpoint(folder)
    assert (step, state["batches"]) == (4, 4)
    one, two = (entry["torch"] for entry in state["random"])
    assert not torch.equal(one, two)


@pytest.mark.slow
def test_torchrun_resumes_a_run_stopped_under_accelerate_launch(tmp_path: Path, tiny_config: str) -> None:
    def arguments(name: str) -> list[str]:
        return [tiny_config, f"out={tmp_path}", f"name={name}", "train.steps=40", "--resume", "auto"]

    def trained(name: str) -> bytes:
        done = start(TORCHRUN, *arguments(name))
        assert done.returncode == 0, done.stderr
        assert [line["step"] for line in read_metrics(tmp_path / name)] == list(range(1, 41))
        return (tmp_path / name / "encoder" / "encoder.safetensors").read_bytes()

    cut = tmp_path / "cut"
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(ACCELERATE, *arguments("cut")), **pipes) as process:  # pyright: ignore
        while process.poll() is None and len(read_metrics(cut)) < 4:
            time.sleep(0.02)
        process.terminate()
        _, said = process.communicate(timeout=600)
    assert process.returncode != 0
    assert said.count("interrupted") >= 2
    assert not (cut / "encoder").exists()
    assert trained("cut") == trained("whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "settings", "message"),
    [
        (TORCHRUN, ["data.batch_size=3"], "error: data.batch_size 3 is not divisible by 2 processes"),
        (ACCELERATE_CPU, [], "error: `accelerate launch --cpu` starts one process"),
    ],
)
def test_invalid_request_under_a_launcher_is_one_line(
    tmp_path: Path, tiny_config: str, launcher: tuple[str, ...], settings: list[str], message: str
) -> None:
    done = start(launcher, tiny_config, f"out={tmp_path}", *settings)
    assert done.returncode != 0
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
