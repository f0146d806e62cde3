"""A linear regression whose answer is known in closed form, and a stream of its batches."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from modalgate.launch.schema import TrainConfig
from torch import Tensor, nn

FEATURES = 4
TRUTH = torch.tensor([1.0, -2.0, 0.5, 3.0])


@dataclass
class ToyBatch:
    key: list[str]
    x: Tensor
    y: Tensor
    seed: int

    def to(self, device: torch.device | str) -> "ToyBatch":
        return ToyBatch(self.key, self.x.to(device), self.y.to(device), self.seed)


@dataclass
class ToyStream:
    """Noisy samples of a line, or NaNs at the batch numbers in `broken`; signals itself at `stop_at`."""

    size: int = 8
    broken: frozenset[int] = frozenset()
    stop_at: int | None = None
    save_at: int | None = None
    workers: int = 0

    def train(self, start: int) -> Iterator[ToyBatch]:
        number = start
        torch.empty((), dtype=torch.int64).random_()  # as a DataLoader does for its base seed when it starts
        while True:
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(self.size, FEATURES, generator=generator)
            y = x @ TRUTH + 2 + 0.1 * torch.randn(self.size, generator=generator)
            if number in self.broken:
                x = torch.full_like(x, torch.nan)
            if number == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            if number == self.save_at:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield ToyBatch([f"{number}-{row}" for row in range(self.size)], x, y, number)
            number += 1


class Regression(nn.Module):
    """Squared error; with `dropout` it draws from the global generator, as real objectives do."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(FEATURES) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.line = nn.Linear(FEATURES, 1)
        self.weights = {"fit/loss": 1.0, "idle/loss": 0.0}

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        error = self.line(self.dropout(self.norm(batch.x)))[:, 0] - batch.y
        return {"fit/loss": error.square().mean(), "idle/loss": error.abs().sum(), "fit/bias": error.mean().detach()}


def settings(**changes: object) -> TrainConfig:
    fields = {"steps": 12, "learning_rate": 0.1, "weight_decay": 0.0, "log_every": 4, "checkpoint_every": 5}
    return TrainConfig(**{**fields, **changes})  # pyright: ignore[reportArgumentType]
