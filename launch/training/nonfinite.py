"""Steps whose loss or gradient is not finite: left out, written down, and not for ever."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...shards.errors import DataError


class NonFiniteGuard:
    """Counts non-finite steps in a row, up to `limit`, and undoes what they did to the buffers of `objective`.

    A batch norm takes a NaN into its running statistics in the forward pass: leaving out the step does not undo it.
    """

    def __init__(self, run: Path, objective: nn.Module, limit: int, rank: int = 0) -> None:
        self.path, self.limit, self.rank = run / "nonfinite.jsonl", limit, rank
        self.in_a_row = 0
        self._buffers: list[Tensor] = list(objective.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]

    def remember(self) -> None:
        """Keeps the buffers as they are before a step."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)  # pyright: ignore[reportPrivateImportUsage]

    def record(self, step: int, loss: float, keys: Sequence[str]) -> None:
        """Restores the buffers and adds the step's clips to RUN/nonfinite.jsonl."""
        self.in_a_row += 1
        for kept, buffer in zip(self._kept, self._buffers, strict=True):
            buffer.copy_(kept)
        line = {"step": step, "rank": self.rank, "loss": str(loss), "keys": list(keys)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def error(self) -> DataError | None:
        """What to raise after `limit` such steps in a row."""
        if self.in_a_row < self.limit:
            return None
        return DataError(
            f"the loss or its gradient was not finite in {self.limit} steps in a row: the clips are listed in "
            f"'{self.path}'; check them, or lower train.learning_rate"
        )
