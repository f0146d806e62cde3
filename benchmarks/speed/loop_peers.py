"""The loops that `loop_cost.py` measures: ours, a bare one with Accelerate, and Lightning's, on the same step."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch
from accelerate import Accelerator
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.loop import train
from modalgate.launch.training.state import RunState
from modalgate.shards.batch import Batch
from modalgate.ssl.objective import PretextObjective

WARM_UP = 5


@dataclass
class Held:
    """Batches held in memory, repeated for ever; `asked` has the time of each request."""

    batches: list[Batch]
    workers: int = 0
    asked: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    process: psutil.Process = field(default_factory=psutil.Process)

    def train(self, start: int = 0, /) -> Iterator[Batch]:
        number = start
        while True:
            self.asked.append(time.perf_counter())
            if number % 20 == 0:
                self.resident.append(self.process.memory_info().rss)
            yield self.batches[number % len(self.batches)]
            number += 1

    def step_seconds(self) -> float:
        """Mean time between requests, without the warm-up."""
        return (self.asked[-1] - self.asked[WARM_UP]) / (len(self.asked) - 1 - WARM_UP)


def run_ours(objective: PretextObjective, held: Held, config: TrainConfig, run: Path) -> None:
    with open(os.devnull, "w") as silence, redirect_stderr(silence):
        train(objective, held, config, run, tracker_mode="disabled")


def run_bare(objective: PretextObjective, held: Held, config: TrainConfig) -> None:
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    optimizer = torch.optim.AdamW(objective.parameters(), lr=config.learning_rate, fused=True)
    model, optimizer = accelerator.prepare(objective, optimizer)
    for batch in islice(held.train(), config.steps):
        accelerator.backward(total_loss(model(batch.to(accelerator.device))))
        accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()


def run_lightning(objective: PretextObjective, held: Held, config: TrainConfig, folder: Path) -> None:
    from pytorch_lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.objective = objective

        def training_step(self, batch: Batch, number: int) -> torch.Tensor:
            return total_loss(self.objective(batch))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=config.learning_rate, fused=True)

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            # Its own clipping refuses fused optimisers.
            torch.nn.utils.clip_grad_norm_(self.parameters(), config.clip_norm)

    class Batches(torch.utils.data.IterableDataset[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            return held.train()

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_steps=config.steps,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(Module(), torch.utils.data.DataLoader(Batches(), batch_size=None))


def total_loss(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([value for name, value in outputs.items() if name.endswith("/loss")]).sum()


@contextmanager
def timed_parts(held: Held) -> Iterator[tuple[dict[str, float], list[float]]]:
    """Seconds that our loop spent in each part of a step after the warm-up, and when each ended, while it is open.

    What lies inside another part counts there only. A part that was never called is an error in the end.
    """
    spent: dict[str, float] = {}
    ends: list[float] = []
    inside = False

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal inside
            if inside:
                return function(*given, **named)
            inside, began = True, time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                inside = False
                if len(held.asked) > WARM_UP:
                    ends.append(time.perf_counter())
                    spent[part] = spent.get(part, 0.0) + ends[-1] - max(began, held.asked[WARM_UP])

        return call

    places = {
        ("forward", PretextObjective): "forward",
        ("backward", RunState): "backward",
        ("clip", RunState): "clip",
        ("optimizer", torch.optim.AdamW): "step",
        ("optimizer", torch.optim.AdamW, "zero"): "zero_grad",
    }
    with ExitStack() as stack:
        for (part, owner, *_), name in places.items():
            stack.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        loop = sys.modules[train.__module__]
        stack.enter_context(patch.object(loop, "_next", timed("data", loop._next)))
        yield spent, ends
    if unseen := {"data", *(part for part, *_ in places)} - spent.keys():
        raise SystemExit(f"the loop went past what is timed: {', '.join(sorted(unseen))}")
