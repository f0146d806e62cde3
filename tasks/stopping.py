"""Early stopping: a classifier watched on validation clips, and the best of its states."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from .metrics import top_k_accuracy
from .scoring import Scores


def mean_loss(scores: Scores) -> float:
    """Mean `-log p` of the true class over clips, of probabilities averaged over views."""
    chosen = scores.probabilities[np.arange(len(scores.labels)), scores.labels]
    return float(-np.log(np.maximum(chosen.astype(float), 1e-30)).mean())


class EarlyStopping:
    """Keeps the state of the least validation loss; `stop` after `patience` measurements without a lesser one.

    `score()` gives the scores of the validation clips under `model` as it stands. The best state lies in `file`, from
    which a resumed run goes on; only the process that `writes` writes it. Calling it measures, and returns
    `validation/loss` and `validation/accuracy`.
    """

    def __init__(
        self, model: nn.Module, score: Callable[[], Scores], patience: int, file: Path, writes: bool = True
    ) -> None:
        self.model, self.score, self.patience, self.file, self.writes = model, score, patience, file, writes
        self.best, self.best_step, self.since = float("inf"), -1, 0
        self.state: dict = {}

    @property
    def stop(self) -> bool:
        return bool(self.patience) and self.since >= self.patience

    def resume(self) -> None:
        """Takes up the best state and the count that an interrupted run left; nothing where it left none."""
        if not self.file.is_file():
            return
        with safe_open(self.file, framework="pt") as file:
            facts = json.loads(file.metadata()["stopping"])
        self.best, self.best_step, self.since = facts["best"], facts["step"], facts["since"]
        self.state = load_file(self.file)

    def __call__(self, step: int) -> dict[str, float]:
        scores = self.score()
        loss = mean_loss(scores)
        if loss < self.best:
            self.best, self.best_step, self.since = loss, step, 0
            self.state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        else:
            self.since += 1
        if self.writes:
            self._save()
        return {"validation/loss": loss, "validation/accuracy": top_k_accuracy(scores.probabilities, scores.labels)}

    def restore(self) -> None:
        """Puts the best state back into the model; nothing where nothing was measured."""
        if self.state:
            self.model.load_state_dict(self.state)

    def _save(self) -> None:
        facts = {"best": self.best, "step": self.best_step, "since": self.since}
        partial = self.file.with_suffix(".partial")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.state.items()}, partial, {"stopping": json.dumps(facts)})
        partial.replace(self.file)
