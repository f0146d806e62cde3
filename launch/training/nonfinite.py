"""Steps whose loss or gradient is not finite: skipped, listed and limited."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...shards.errors import DataError


class NonFiniteGuard:
    """Counts non-finite steps in a row, up to `limit`, and restores what the forward pass of each has changed.

    These are the buffers of `objective` and the weights that the optimiser does not train. A batch norm adds a NaN to
    its running statistics in the forward pass, and a teacher moves towards the trained weights; skipping the update
    does not undo that.
    """

    def __init__(self, run: Path, objective: nn.Module, limit: int, rank: int = 0) -> None:
        self.path, self.limit, self.rank = run / "nonfinite.jsonl", limit, rank
        self.in_a_row = 0
        fixed = [weight for weight in objective.parameters() if not weight.requires_grad]
        self._changing: list[Tensor] = [*objective.buffers(), *(weight.detach() for weight in fixed)]
        self._kept = [tensor.clone() for tensor in self._changing]

    def remember(self) -> None:
        """Copies the buffers and the untrained weights before a step."""
        if self._changing:
            torch._foreach_copy_(self._kept, self._changing)  # pyright: ignore[reportPrivateImportUsage]

    def restore(self) -> None:
        """Copies them back as they were before the step."""
        for kept, tensor in zip(self._kept, self._changing, strict=True):
            tensor.copy_(kept)

    def record(self, step: int, loss: float, keys: Sequence[str]) -> None:
        """Restores what the step has changed, and adds the step's clips to RUN/nonfinite.jsonl."""
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
