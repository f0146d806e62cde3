"""Checkpoints load exactly or not at all."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.launch.training import checkpoint
from modalgate.launch.training.checkpoint import (
    best_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from modalgate.shards.errors import DataError

MODEL = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "count": torch.tensor(3),
    "half": torch.ones(2, dtype=torch.bfloat16),
}


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two) and one.dtype == two.dtype
    if isinstance(one, dict):
        return list(one) == list(two) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(equal(a, b) for a, b in zip(one, two, strict=True))
    return one == two


def test_every_value_comes_back(tmp_path: Path) -> None:
    state = {
        "none": None,
        "text": "å",
        "number": 0.1 + 0.2,
        "flag": True,
        "by number": {0: {"exp_avg": torch.randn(3)}, 1: {}},
        "list": [1, [torch.zeros(0)], {"tensor": "no tensor"}],
    }
    folder = save_checkpoint(tmp_path, 7, MODEL, state, keep=2)
    step, model, loaded = load_checkpoint(folder)
    assert step == 7
    assert equal(dict(sorted(MODEL.items())), dict(sorted(model.items())))
    assert equal(state, loaded)


def test_restored_optimizer_continues_unchanged(tmp_path: Path) -> None:
    def stepped(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (parameter**3).sum().backward()
        optimizer.step()

    parameter = torch.nn.Parameter(torch.randn(5))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    stepped(parameter, optimizer)
    folder = save_checkpoint(tmp_path, 1, {"p": parameter}, {"optimizer": optimizer.state_dict()}, keep=1)
    stepped(parameter, optimizer)
    _, model, state = load_checkpoint(folder)
    other = torch.nn.Parameter(model["p"])
    again = torch.optim.AdamW([other], lr=0.3)
    again.load_state_dict(state["optimizer"])
    stepped(other, again)
    assert torch.equal(other, parameter)


def test_random_states_come_back(tmp_path: Path) -> None:
    def draws() -> list[float]:
        legacy = np.random.normal()  # noqa: NPY002
        return [random.random(), random.gauss(0, 1), legacy, float(torch.rand(())), float(torch.randn(()))]

    draws()
    folder = save_checkpoint(tmp_path, 1, MODEL, {"random": random_state()}, keep=1)
    expected = draws()
    draws()
    set_random_state(load_checkpoint(folder)[2]["random"])
    assert draws() == expected


def test_only_the_newest_are_kept_in_order_of_their_number(tmp_path: Path) -> None:
    for step in (8, 9, 10, 100):
        save_checkpoint(tmp_path, step, MODEL, {}, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-10", "step-100"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-100"


def test_best_checkpoint_is_kept_with_the_newest(tmp_path: Path) -> None:
    assert best_checkpoint(tmp_path) is None
    for step, score in enumerate([0.1, 0.9, float("nan"), 0.3, None, 0.2]):
        save_checkpoint(tmp_path, step, MODEL, {}, keep=2, score=score)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-1", "step-4", "step-5"]
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert best.name == "step-1"
    save_checkpoint(tmp_path, 6, MODEL, {}, keep=2, score=0.9)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-5", "step-6"]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_checkpoints_do_not_count_as_kept(tmp_path: Path, keep: int) -> None:
    for step in (3, 6, 8, 12):
        save_checkpoint(tmp_path, step, MODEL, {}, keep=9, score=1.0 if step == 12 else 0.1 * step)
    (tmp_path / "checkpoints" / "step-12" / "state.safetensors").unlink()
    (tmp_path / "checkpoints" / "step-6" / "state.json").write_text("{")
    # Resumed from step 8, because step 12 is damaged and with it the highest score.
    written = save_checkpoint(tmp_path, 9, MODEL, {}, keep=keep, score=0.2)
    assert latest_checkpoint(tmp_path) == written
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-8"
    save_checkpoint(tmp_path, 10, MODEL, {}, keep=keep, score=0.2)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-10"
    save_checkpoint(tmp_path, 12, MODEL, {}, keep=keep, score=0.2)
    newest = {"step-8", "step-10", "step-12"} if keep == 2 else {"step-8", "step-12"}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == newest


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_checkpoint_is_skipped(tmp_path: Path, name: str, damage: str) -> None:
    good = save_checkpoint(tmp_path, 1, MODEL, {"x": torch.ones(3)}, keep=3)
    bad = save_checkpoint(tmp_path, 2, MODEL, {"x": torch.ones(3)}, keep=3)
    data = (bad / name).read_bytes()
    if damage == "gone":
        (bad / name).unlink()
    else:
        (bad / name).write_bytes(data[: len(data) // 2] if damage == "cut" else bytes([data[0] ^ 255]) + data[1:])
    assert latest_checkpoint(tmp_path) == good
    with pytest.raises(DataError, match="step-2' is damaged"):
        load_checkpoint(bad)
    save_checkpoint(tmp_path, 2, MODEL, {"x": torch.ones(3)}, keep=3)
    assert latest_checkpoint(tmp_path) == bad


def test_half_written_checkpoint_is_ignored(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints" / ".step-3.partial").mkdir(parents=True)
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 3, MODEL, {}, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-3"]


def test_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save_checkpoint(tmp_path, 1, MODEL, {}, keep=1)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sync", full)
    with pytest.raises(DataError, match="No space left on device"):
        save_checkpoint(tmp_path, 2, MODEL, {}, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    assert latest_checkpoint(tmp_path) == before


@pytest.mark.slow
def test_file_size_limit_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """A real error of the system, in a process with a file size limit of 100 kB."""
    script = (
        "import resource, sys, torch; from pathlib import Path; from modalgate.launch.training.checkpoint import *\n"
        "from modalgate.shards.errors import DataError\n"
        "save_checkpoint(Path(sys.argv[1]), 1, {'a': torch.ones(1000)}, {}, keep=1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: save_checkpoint(Path(sys.argv[1]), 2, {'a': torch.ones(100_000)}, {}, keep=1)\n"
        "except DataError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert re.search(r"step-2' could not be written \(.*File too large.*\): the previous one is kept", told.stdout)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-1"


def test_tied_weights_are_saved_under_both_names(tmp_path: Path) -> None:
    tied = torch.randn(3)
    _, model, _ = load_checkpoint(save_checkpoint(tmp_path, 1, {"a": tied, "b": tied}, {}, keep=1))
    assert torch.equal(model["a"], tied)
    assert torch.equal(model["b"], tied)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not set"):
        save_checkpoint(tmp_path, 1, MODEL, {"x": {1, 2}}, keep=1)
    folder = save_checkpoint(tmp_path, 1, MODEL, {"x": 1}, keep=1)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "state.json", "state.safetensors"]
    assert json.loads((folder / "state.json").read_text())["step"] == 1
