"""Trains a line in several processes, of which one is slow, or never comes back.

`main([HOW, RUN, MINUTES])`; HOW is `stream`, where rank 1 never gets its fourth batch, `forward`, where rank 0 hangs
in the fourth step, or `slow`, where rank 0 takes its time over an evaluation and comes back.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.device import ranks
from modalgate.launch.training.loop import Evaluation, train
from torch import Tensor, nn

FOR_EVER, A_WHILE = 600.0, 2.0


@dataclass
class Numbers:
    key: list[str]
    x: Tensor
    seed: int

    def to(self, device: torch.device | str, /) -> "Numbers":
        return self


@dataclass
class Source:
    how: str
    rank: int
    workers: int = 0

    def train(self, start: int, /) -> Iterator[Numbers]:
        number = start
        while True:
            if (self.how, self.rank, number) == ("stream", 1, 3):
                time.sleep(FOR_EVER)
            yield Numbers(["a", "b"], torch.ones(2, 3), number)
            number += 1


class Line(nn.Module):
    def __init__(self, how: str, rank: int) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.how, self.rank = how, rank

    def forward(self, batch: Numbers) -> dict[str, Tensor]:
        if (self.how, self.rank, batch.seed) == ("forward", 0, 3):
            time.sleep(FOR_EVER)
        return {"fit/loss": self.line(batch.x).square().mean()}


def main(arguments: Sequence[str]) -> int:
    how, run, minutes = arguments
    rank, _ = ranks()

    def measure(step: int) -> dict[str, float]:
        if how == "slow" and rank == 0:
            time.sleep(A_WHILE)
        return {}

    config = TrainConfig(steps=6, log_every=1, threads=1, precision="fp32", best=None, hang_minutes=float(minutes))
    evaluation = Evaluation(measure, every=3)
    train(Line(how, rank), Source(how, rank), config, Path(run), tracker_mode="disabled", evaluation=evaluation)
    return 0
