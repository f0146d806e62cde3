"""An exponential moving average of the trained weights. It generalises better than the last weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .fsdp import divided_like


class WeightAverage:
    """Follows the trainable parameters of `objective`: `average = d average + (1 - d) weight` after every step.

    `decay` is the largest d. After n steps d is at most (1 + n) / (10 + n), so that the first, random weights are
    soon forgotten. Buffers are not averaged: the statistics of a norm are averages already.
    """

    def __init__(self, objective: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().clone() for name, p in self._weights.items()}

    def update(self, step: int) -> None:
        """Adds the weights after step number `step` (from 0)."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        average(list(self._averages.values()), list(self._weights.values()), None)

    def put_in_place(self) -> None:
        """Copies the averaged weights into the objective."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(self._averages[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block, the objective has the averaged weights: it is evaluated as it will be exported."""
        trained = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.put_in_place()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(trained[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return self._averages

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the result of `state_dict`."""
        for name, average in self._averages.items():
            average.copy_(divided_like(state[name], average))
