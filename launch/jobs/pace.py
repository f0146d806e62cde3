"""Seconds per training step on this machine."""

import itertools
import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn


class Batches(Protocol):
    """A stream of batches; `workers` processes decode them."""

    workers: int

    def train(self, start: int, /) -> Iterator[Any]: ...


def seconds_per_step(objective: nn.Module, stream: Batches, steps: int = 4) -> float:
    """Seconds from one batch to the next while `objective` computes losses and gradients, without an update.

    The median of `steps` steps after a first one, which starts processes and fills caches. Weights, statistics of
    norms and generators do not change.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    took: list[float] = []
    with torch.random.fork_rng(devices=[]):
        objective.to(device).train()
        began = time.monotonic()
        for batch in itertools.islice(stream.train(0), steps + 1):
            outputs = objective(batch.to(device))
            torch.stack([value for name, value in outputs.items() if name.endswith("/loss")]).sum().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            took.append(time.monotonic() - began)
            began = time.monotonic()
    objective.zero_grad(set_to_none=True)
    objective.load_state_dict(state)
    return sorted(took[1:])[steps // 2]
