"""Early stopping on a model whose validation scores are planted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.shards.errors import DataError
from modalgate.tasks.evaluation.scores import Scores
from modalgate.tasks.finetuning.early_stopping import EarlyStopping, Until, chosen_step, mean_loss


def scores(right: float) -> Scores:
    rows = np.array([[right, 1 - right], [1 - right, right]], np.float32)
    return Scores(rows, np.ones((2, 1), np.float32), np.array([0, 1]), ["a", "b"])


class Planted:
    """A model whose weight is the step. Its validation clips get the true class with probability `course[step]`."""

    def __init__(self, course: list[float], patience: int, file: Path) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.course = course
        self.stopping = EarlyStopping(self.model, self.score, patience, file)

    def score(self) -> Scores:
        return scores(self.course[int(self.model.weight.item())])

    def run(self, steps: range) -> int:
        for step in steps:
            torch.nn.init.constant_(self.model.weight, step)
            self.stopping(step)
            if self.stopping.stop:
                return step
        return -1


def test_the_loss_uses_averaged_probabilities() -> None:
    assert mean_loss(scores(0.25)) == pytest.approx(-np.log(0.25))


def test_training_stops_after_patience_and_restores_the_best_state(tmp_path: Path) -> None:
    planted = Planted([0.5, 0.7, 0.9, 0.8, 0.85, 0.6, 0.99], 3, tmp_path / "best.safetensors")
    assert planted.run(range(7)) == 5
    planted.stopping.restore()
    assert planted.model.weight.item() == 2


def test_zero_patience_never_stops_and_keeps_the_best(tmp_path: Path) -> None:
    planted = Planted([0.9, 0.5, 0.4, 0.3], 0, tmp_path / "best.safetensors")
    assert planted.run(range(4)) == -1
    planted.stopping.restore()
    assert planted.model.weight.item() == 0


def test_a_resumed_run_continues_counting(tmp_path: Path) -> None:
    course, file = [0.5, 0.9, 0.8, 0.7, 0.6], tmp_path / "best.safetensors"
    Planted(course, 3, file).run(range(3))
    resumed = Planted(course, 3, file)
    resumed.stopping.resume()
    assert resumed.run(range(3, 5)) == 4
    resumed.stopping.restore()
    assert resumed.model.weight.item() == 1


def test_measurements_after_the_checkpoint_are_not_counted_twice(tmp_path: Path) -> None:
    course, file = [0.5, 0.9, 0.8, 0.7, 0.6], tmp_path / "best.safetensors"
    Planted(course, 3, file).run(range(4))
    resumed = Planted(course, 3, file)
    resumed.stopping.resume()
    assert resumed.run(range(1, 5)) == 4
    resumed.stopping.restore()
    assert resumed.model.weight.item() == 1


def test_a_damaged_file_raises_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    file.write_bytes(b"no tensors")
    with pytest.raises(DataError, match=r"best\.safetensors"):
        Planted([0.5], 1, file).stopping.resume()


def test_measurements_have_log_names(tmp_path: Path) -> None:
    planted = Planted([0.9], 1, tmp_path / "best.safetensors")
    torch.nn.init.zeros_(planted.model.weight)
    assert planted.stopping(0) == pytest.approx({"validation/loss": -np.log(0.9), "validation/accuracy": 1.0})


def test_the_chosen_step_is_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    Planted([0.5, 0.7, 0.9, 0.8, 0.9], 0, file).run(range(5))
    assert chosen_step(file) == 2
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(DataError, match=r"best\.safetensors' is damaged"):
        chosen_step(file)


def test_until_stops_at_its_number_of_steps() -> None:
    stopping = Until(4)
    assert not stopping.stop
    assert stopping(4) == {}
    assert stopping.stop
    assert Until(4, reached=4).stop
    assert not Until(4, reached=3).stop
