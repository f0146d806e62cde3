"""Running means of named values, over all processes."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from accelerate.utils import gather_object
from torch import Tensor


class Means:
    """Sums on the device, read once per log: reading a value waits for the GPU."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One batch's scalars; a name that is missing in a batch does not count in it."""
        for name, value in values.items():
            value = value.detach().to(torch.float64 if value.device.type == "cpu" else torch.float32)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] += 1

    def take(self) -> dict[str, float]:
        """The means since the last call; every process calls it, and names may differ between them."""
        here = {name: (float(total), self._counts[name]) for name, total in self._sums.items()}
        self._sums, self._counts = {}, defaultdict(int)
        everywhere: list[dict[str, tuple[float, int]]] = gather_object([here])
        names = dict.fromkeys(name for entry in everywhere for name in entry)
        means = {}
        for name in names:
            entries = [entry[name] for entry in everywhere if name in entry]
            means[name] = sum(total for total, _ in entries) / sum(count for _, count in entries)
        return means
