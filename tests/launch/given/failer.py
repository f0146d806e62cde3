"""Trains a line in two processes, of which one fails, and prints the error as the command line does.

`main([HOW, RANK, RUN, *MORE])`. HOW is where RANK fails, in its sixth step: `forward`, `backward`, `memory`, `move`
(its batch cannot be moved to the device), `killed` (its process), `lingers` (its process catches the error and lives
on), `evaluating` (after its sixth step) or `never`. MORE: `resume`.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.device import ranks
from modalgate.launch.training.loop import Evaluation, train
from modalgate.shards.errors import DataError, RequestError
from torch import Tensor, nn

STEP = 5


@dataclass
class Numbers:
    key: list[str]
    x: Tensor
    seed: int
    fails: bool = False

    def to(self, device: torch.device | str, /) -> "Numbers":
        if self.fails:
            raise ValueError("planted: this batch is broken")
        return self


@dataclass
class Source:
    how: str
    here: bool
    rank: int
    workers: int = 0

    def train(self, start: int, /) -> Iterator[Numbers]:
        number = start
        while True:
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(2 * number + self.rank))
            fails = self.here and self.how == "move" and number == STEP
            yield Numbers(["a", "b"], x, number, fails)
            number += 1


class Line(nn.Module):
    """With dropout, which draws, and with a norm, whose statistics change in the forward pass."""

    def __init__(self, how: str, here: bool) -> None:
        super().__init__()
        self.line, self.norm, self.drop = nn.Linear(3, 1), nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.how, self.here = how, here

    def forward(self, batch: Numbers) -> dict[str, Tensor]:
        loss = self.line(self.drop(self.norm(batch.x))).square().mean()
        if self.here and batch.seed == STEP:
            if self.how in ("forward", "lingers"):
                raise ValueError("planted in the forward pass")
            if self.how == "memory":
                raise torch.OutOfMemoryError("planted: out of memory")
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "backward":
                loss.register_hook(_fail)
        return {"fit/loss": loss}


def _fail(gradient: Tensor) -> Tensor:
    raise RuntimeError("planted in the backward pass")


def main(arguments: Sequence[str]) -> int:
    how, failing, run, *more = arguments
    rank, _ = ranks()
    here = rank == int(failing)

    def measure(step: int) -> dict[str, float]:
        if here and how == "evaluating":
            raise ValueError("planted in the evaluation")
        return {}

    torch.manual_seed(0)
    config = TrainConfig(steps=8, log_every=1, threads=1, precision="fp32", best=None, average=0.9)
    objective, source, evaluation = Line(how, here), Source(how, here, rank), Evaluation(measure, every=STEP + 1)
    try:
        train(
            objective,
            source,
            config,
            Path(run),
            tracker_mode="disabled",
            evaluation=evaluation,
            resume="resume" in more,
        )
    except (DataError, RequestError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if how == "lingers" and here:
            time.sleep(40)
        return 3
    return 0
