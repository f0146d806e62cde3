"""The time of a training step: measured between batches, without a trace in the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from modalgate.launch.jobs.pace import seconds_per_step
from torch import Tensor, nn


@dataclass
class _Batch:
    values: Tensor

    def to(self, device: str) -> "_Batch":
        return self


class _Slow:
    """Batches that take as long as `seconds` says, on a clock that only they move."""

    workers = 0

    def __init__(self, seconds: list[float]) -> None:
        self.seconds, self.handed, self.now = seconds, 0, 100.0

    def train(self, start: int, /) -> Iterator[_Batch]:
        for seconds in self.seconds:
            self.now += seconds
            self.handed += 1
            yield _Batch(torch.ones(4, 3))


class _Objective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))

    def forward(self, batch: _Batch) -> dict[str, Tensor]:
        return {"label/loss": self.layer(batch.values).sum(), "label/accuracy": torch.ones(())}


def test_first_step_is_not_counted_and_weights_do_not_change(monkeypatch: pytest.MonkeyPatch):
    objective, stream = _Objective(), _Slow([60.0, 2.0, 9.0, 3.0, 1.0, 100.0])
    monkeypatch.setattr("modalgate.launch.jobs.pace.time", SimpleNamespace(monotonic=lambda: stream.now))
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    drawn = torch.random.get_rng_state()
    seconds = seconds_per_step(objective, stream, steps=4)
    # The upper median of 2, 9, 3 and 1: the first step is dropped.
    assert seconds == 3
    assert stream.handed == 5
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert all(parameter.grad is None for parameter in objective.parameters())
    assert torch.equal(torch.random.get_rng_state(), drawn)
