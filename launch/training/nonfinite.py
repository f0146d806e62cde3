"""Steps whose loss or gradient is not finite: skipped, listed and limited."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...shards.errors import DataError


class NonFiniteGuard:
    """Counts non-finite steps in a row, up to `limit`, and restores the buffers of `objective` after each.

    A batch norm adds a NaN to its running statistics in the forward pass; skipping the update does not undo that.
    """

    def __init__(self, run: Path, objective: nn.Module, limit: int, rank: int = 0) -> None:
        self.path, self.limit, self.rank = run / "nonfinite.jsonl", limit, rank
        self.in_a_row = 0
        self._buffers: list[Tensor] = list(objective.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]

    def remember(self) -> None:
        """Copies the buffers before a step."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)  # pyright: ignore[reportPrivateImportUsage]

    def restore(self) -> None:
        """Copies the buffers back as they were before the step."""
        for kept, buffer in zip(self._kept, self._buffers, strict=True):
            buffer.copy_(kept)

    def record(self, step: int, loss: float, keys: Sequence[str]) -> None:
        """Restores the buffers and adds the step's clips to RUN/nonfinite.jsonl."""
        self.in_a_row += 1
        self.restore()
        line = {"step": step, "rank": self.rank, "loss": str(loss), "keys": list(keys)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def error(self) -> DataError | None:
        """The error after `limit` such steps in a row, else None."""
        if self.in_a_row < self.limit:
            return None
        return DataError(
            f"the loss or its gradient was not finite in {self.limit} steps in a row: check the clips listed in "
            f"'{self.path}', or lower train.learning_rate"
        )
