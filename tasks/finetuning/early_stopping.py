"""Early stopping: validation during training, and the best state."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...shards.errors import DataError
from ...shards.index.whole_file import whole_file
from ..evaluation.scores import Scores
from ..metrics.classification import top_k_accuracy
from ..metrics.multilabel import mean_average_precision

BEST = "best.safetensors"


def mean_loss(scores: Scores) -> float:
    """Returns the mean of `-log p` over clips, with probabilities averaged over views.

    p is the probability of the true class. With several classes per clip, it is that of each correct decision.
    """
    if scores.labels.ndim == 2:
        right = np.where(scores.labels == 1, scores.probabilities, 1 - scores.probabilities)
        return float(-np.log(np.maximum(right.astype(float), 1e-30)).mean())
    chosen = scores.probabilities[np.arange(len(scores.labels)), scores.labels]
    return float(-np.log(np.maximum(chosen.astype(float), 1e-30)).mean())


class EarlyStopping:
    """Keeps the state with the lowest validation loss.

    `stop` is true after `patience` measurements without improvement.

    - `score()`: returns the scores of the validation clips under the current `model`.
    - `patience`: 0 never stops.
    - `file`: stores the best state and the history. `resume` reads it.
    - `writes`: whether this process writes `file`.

    Calling it measures. It returns `validation/loss` and `validation/accuracy`, or
    `validation/mean_average_precision` with several classes per clip.
    """

    def __init__(
        self, model: nn.Module, score: Callable[[], Scores], patience: int, file: Path, writes: bool = True
    ) -> None:
        self.model, self.score, self.patience, self.file, self.writes = model, score, patience, file, writes
        self.losses: dict[int, float] = {}
        self.state: dict[str, Tensor] = {}

    @property
    def stop(self) -> bool:
        if not self.patience or not self.losses:
            return False
        steps = sorted(self.losses)
        return len(steps) - 1 - steps.index(_least(self.losses)) >= self.patience

    def resume(self) -> None:
        """Loads the history and best state of an interrupted run, if there is a file.

        Raises `DataError` if it is damaged.
        """
        if not self.file.is_file():
            return
        self.losses = _losses(self.file)
        self.state = load_file(self.file)

    def __call__(self, step: int) -> dict[str, float]:
        # A killed run resumes from an earlier checkpoint: drop the measurements after it, to not count them twice.
        self.losses = {before: loss for before, loss in self.losses.items() if before < step}
        scores = self.score()
        loss = mean_loss(scores)
        if loss < min(self.losses.values(), default=math.inf):
            self.state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        self.losses[step] = loss
        if self.writes:
            self._save()
        if scores.labels.ndim == 2:
            precision = mean_average_precision(scores.probabilities, scores.labels)
            return {"validation/loss": loss, "validation/mean_average_precision": precision}
        return {"validation/loss": loss, "validation/accuracy": top_k_accuracy(scores.probabilities, scores.labels)}

    def restore(self) -> None:
        """Loads the best state into the model, if there was a measurement."""
        if self.state:
            self.model.load_state_dict(self.state)

    def _save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous() for name, value in self.state.items()}
        with whole_file(self.file) as partial:
            save_file(state, partial, {"losses": json.dumps(self.losses)})


def chosen_step(file: Path) -> int:
    """Returns the step of the best state in `file`. Raises `DataError` if the file is damaged."""
    return _least(_losses(file))


def _losses(file: Path) -> dict[int, float]:
    try:
        with safe_open(file, framework="pt") as opened:
            facts = json.loads(opened.metadata()["losses"])
        return {int(step): float(loss) for step, loss in facts.items()}
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"best state '{file}' is damaged ({error}): delete it to resume without it") from error


def _least(losses: Mapping[int, float]) -> int:
    return min(sorted(losses), key=losses.__getitem__)


@dataclass
class Until:
    """Ends a training after a number of steps, without measuring."""

    steps: int
    """Number of steps."""
    reached: int = 0
    """Last finished step."""

    @property
    def stop(self) -> bool:
        return self.reached >= self.steps

    def __call__(self, step: int) -> dict[str, float]:
        self.reached = step
        return {}
