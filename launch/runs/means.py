"""Running means of named values, over all processes."""

from collections.abc import Mapping

import torch
from accelerate.utils import gather_object
from torch import Tensor


class Means:
    """Sums on the device, read once per log: reading a value waits for the GPU.

    Batches with the same names share one tensor of sums: an operation per value would be slower.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one batch's scalars; a name missing in a batch is not counted for it."""
        if not values:
            return
        wide = torch.float64 if next(iter(values.values())).device.type == "cpu" else torch.float32
        names = tuple(values)
        total, count = self._sums.get(names, (0, 0))
        self._sums[names] = torch.stack(list(values.values())).to(wide) + total, count + 1

    def take(self) -> dict[str, float]:
        """The means since the last call; every process calls it, and names may differ between them."""
        here = [(names, total.tolist(), count) for names, (total, count) in self._sums.items()]
        self._sums = {}
        everywhere: list[list[tuple[tuple[str, ...], list[float], int]]] = gather_object([here])
        sums: dict[str, tuple[float, int]] = {}
        for names, totals, count in (entry for entries in everywhere for entry in entries):
            for name, total in zip(names, totals, strict=True):
                before, counted = sums.get(name, (0.0, 0))
                sums[name] = before + total, counted + count
        return {name: total / count for name, (total, count) in sums.items()}
