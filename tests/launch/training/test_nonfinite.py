"""Non-finite steps are undone, written down and counted."""

import json
from pathlib import Path

import torch
from modalgate.launch.training.nonfinite import NonFiniteGuard
from torch import nn


def test_buffers_are_restored_and_clips_listed(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(2)
    norm(torch.randn(4, 2))
    guard = NonFiniteGuard(tmp_path, norm, 10, rank=1)
    norm(torch.randn(4, 2))
    guard.remember()
    before = {name: value.clone() for name, value in norm.named_buffers()}
    norm(torch.full((4, 2), torch.nan))
    guard.record(7, float("nan"), ["a", "b"])
    for name, value in norm.named_buffers():
        assert torch.equal(value, before[name])
    line = json.loads((tmp_path / "nonfinite.jsonl").read_text())
    assert line == {"step": 7, "rank": 1, "loss": "nan", "keys": ["a", "b"]}


def test_error_is_raised_at_the_limit_in_a_row(tmp_path: Path) -> None:
    guard = NonFiniteGuard(tmp_path, nn.Identity(), 4)
    for step in range(4):
        assert guard.error() is None
        guard.record(step, float("inf"), ["a"])
    assert "4 steps in a row" in str(guard.error())
    guard.in_a_row = 0
    assert guard.error() is None
