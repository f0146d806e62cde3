"""The loop on a linear regression whose answer is known in closed form."""

import copy
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.training.checkpoint import latest_checkpoint, load_checkpoint
from modalgate.launch.training.loop import Evaluation, train
from modalgate.shards.errors import DataError, RequestError
from torch import Tensor

from ..given.regression import TRUTH, Regression, ToyBatch, ToyStream, settings


def test_reaches_the_closed_form(tmp_path: Path) -> None:
    objective = Regression()
    last = train(objective, ToyStream(64), settings(steps=300), tmp_path / "run", tracker_mode="disabled")
    torch.testing.assert_close(objective.line.weight[0].detach(), TRUTH, atol=0.02, rtol=0)
    torch.testing.assert_close(objective.line.bias.detach(), torch.tensor([2.0]), atol=0.02, rtol=0)
    assert last["fit/loss"] == pytest.approx(0.01, rel=0.3)  # the noise's variance
    assert last["loss"] == pytest.approx(last["fit/loss"])  # the idle loss weighs nothing


def test_logs_means_over_the_steps_between(tmp_path: Path) -> None:
    """With a learning rate of zero the weights are constant, so each logged mean is known."""
    objective = Regression()
    train(objective, ToyStream(), settings(learning_rate=0.0), tmp_path / "run", tracker_mode="disabled")
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [4, 8, 12]
    batches = ToyStream().train(4)
    expected = [float(objective(next(batches))["fit/loss"].detach()) for _ in range(4)]
    assert lines[1]["fit/loss"] == pytest.approx(sum(expected) / 4, rel=1e-6)
    assert 0 <= lines[1]["data_wait"] <= 1
    assert lines[1]["clips_per_second"] > 0


@pytest.mark.parametrize("resumed_at", [5, 10])
def test_resume_equals_uninterrupted_bit_for_bit(tmp_path: Path, resumed_at: int) -> None:
    whole = Regression(dropout=0.5, norm=True)
    train(whole, ToyStream(), settings(), tmp_path / "whole", seed=3, tracker_mode="disabled")

    run = tmp_path / "cut"
    first = Regression(dropout=0.5, norm=True)
    stream = ToyStream(stop_at=resumed_at - 1)
    with pytest.raises(KeyboardInterrupt):
        train(first, stream, settings(), run, seed=3, tracker_mode="disabled")
    torch.manual_seed(99)
    second = Regression(dropout=0.5, norm=True)
    train(second, ToyStream(), settings(), run, seed=3, resume=True, tracker_mode="disabled")

    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    (_, _, one), (_, _, two) = (
        load_checkpoint(tmp_path / folder / "checkpoints" / "step-12") for folder in ("whole", "cut")
    )
    for number, moments in one["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, two["optimizer"]["state"][number][name])
    assert [line["step"] for line in read_metrics(run)] == [4, 8, 12]


class Taught(Regression):
    """With a teacher that follows the trained weights in every forward pass, as slow heads do."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5, norm=True)
        self.teacher = copy.deepcopy(self.line).requires_grad_(False)

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        if self.training:
            for slow, fast in zip(self.teacher.parameters(), self.line.parameters(), strict=True):
                slow.data.lerp_(fast.detach(), 0.5)
        found = super().forward(batch)
        target = self.teacher(batch.x)[:, 0].nan_to_num()
        return found | {"fit/loss": found["fit/loss"] + (self.line(batch.x)[:, 0] - target - 1).square().mean()}


class Dying(ToyStream):
    """The signal that stops the training has ended the loader's workers too."""

    def train(self, start: int) -> Iterator[ToyBatch]:
        for batch in super().train(start):
            yield batch
            if batch.seed == 6:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError("DataLoader worker is killed by signal")


def test_a_step_cut_short_between_its_batches_is_repeated_bit_for_bit(tmp_path: Path) -> None:
    config, whole = settings(accumulate=2), Taught()
    train(whole, ToyStream(), config, tmp_path / "whole", seed=3, tracker_mode="disabled")
    with pytest.raises(KeyboardInterrupt):
        train(Taught(), Dying(), config, tmp_path / "cut", seed=3, tracker_mode="disabled")
    assert saved_steps(tmp_path / "cut") == [3]
    second = Taught()
    train(second, ToyStream(), config, tmp_path / "cut", seed=3, resume=True, tracker_mode="disabled")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_lost_batch_within_a_step_saves_the_steps_before_it(tmp_path: Path) -> None:
    class Lost(ToyStream):
        def train(self, start: int) -> Iterator[ToyBatch]:
            for batch in super().train(start):
                yield batch
                if batch.seed == 6:
                    raise DataError("too many clips are damaged")

    config, whole, second = settings(accumulate=2), Taught(), Taught()
    train(whole, ToyStream(), config, tmp_path / "whole", seed=3, tracker_mode="disabled")
    with pytest.raises(DataError, match="too many clips are damaged"):
        train(Taught(), Lost(), config, tmp_path / "cut", seed=3, tracker_mode="disabled")
    assert saved_steps(tmp_path / "cut") == [3]
    train(second, ToyStream(), config, tmp_path / "cut", seed=3, resume=True, tracker_mode="disabled")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_nonfinite_step_is_skipped_with_the_move_of_its_teacher(tmp_path: Path) -> None:
    taught, reference = Taught(), Taught()
    train(taught, ToyStream(broken=frozenset([2])), settings(steps=3), tmp_path / "run", tracker_mode="disabled")
    train(reference, ToyStream(), settings(steps=2), tmp_path / "reference", tracker_mode="disabled")
    assert torch.equal(taught.teacher.weight, reference.teacher.weight)


def test_a_signal_leaves_a_checkpoint_of_the_step_it_came_in(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(Regression(), ToyStream(stop_at=6), settings(), tmp_path / "run", tracker_mode="disabled")
    folder = latest_checkpoint(tmp_path / "run")
    assert folder is not None
    assert folder.name == "step-7"
    assert signal.getsignal(signal.SIGTERM) is before


def saved_steps(run: Path) -> list[int]:
    return sorted(int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints").iterdir())


def test_sigusr1_saves_and_the_run_continues(tmp_path: Path) -> None:
    config = settings(keep=9, best=None)
    train(Regression(), ToyStream(save_at=6), config, tmp_path / "run", tracker_mode="disabled")
    assert saved_steps(tmp_path / "run") == [5, 7, 10, 12]


def test_checkpoint_interval_in_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that advances by one minute per reading."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 60
        return now

    monkeypatch.setattr("modalgate.launch.training.set_up.time.monotonic", clock)
    config = settings(checkpoint_every=1000, checkpoint_minutes=4.0, keep=9, best=None)
    train(Regression(), ToyStream(), config, tmp_path / "run", tracker_mode="disabled")
    assert saved_steps(tmp_path / "run") == [4, 8, 12]


def test_the_checkpoint_with_the_best_metric_stays(tmp_path: Path) -> None:
    class Ageing(Regression):
        def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
            age = torch.tensor(100.0 * batch.seed)
            return {**super().forward(batch), "age/loss": age, "age/accuracy": age}

    config = settings(checkpoint_every=4, keep=1)
    train(Ageing(), ToyStream(), config, tmp_path / "lower", tracker_mode="disabled")
    assert saved_steps(tmp_path / "lower") == [4, 12]
    config.best = "age/accuracy"
    train(Ageing(), ToyStream(), config, tmp_path / "higher", tracker_mode="disabled")
    assert saved_steps(tmp_path / "higher") == [12]
    config.best = "fit/los"
    with pytest.raises(RequestError, match=r"'train\.best' 'fit/los': did you mean 'fit/loss'"):
        train(Regression(), ToyStream(), config, tmp_path / "other", tracker_mode="disabled")


def test_best_evaluated_checkpoint_is_kept(tmp_path: Path) -> None:
    accuracies = {3: 0.5, 6: 0.9, 9: 0.7, 12: 0.6}
    evaluation = Evaluation(lambda step: {"validation/accuracy": accuracies[step]}, every=3)
    config = settings(keep=1, best="validation/accuracy", log_every=5, checkpoint_every=4)
    train(Regression(), ToyStream(), config, tmp_path / "run", tracker_mode="disabled", evaluation=evaluation)
    assert saved_steps(tmp_path / "run") == [6, 12]
    config.best = "validation/acuracy"
    with pytest.raises(RequestError, match=r"'validation/acuracy': did you mean 'validation/accuracy'"):
        train(Regression(), ToyStream(), config, tmp_path / "no", tracker_mode="disabled", evaluation=evaluation)


def test_averaged_weights_are_final_and_survive_a_resume(tmp_path: Path) -> None:
    config = settings(average=0.9)
    whole, last_step = Regression(), Regression()
    train(whole, ToyStream(), config, tmp_path / "whole", tracker_mode="disabled")
    train(last_step, ToyStream(), settings(), tmp_path / "plain", tracker_mode="disabled")
    assert not torch.equal(whole.line.weight, last_step.line.weight)
    _, weights, state = load_checkpoint(tmp_path / "whole" / "checkpoints" / "step-12")
    assert torch.equal(weights["line.weight"], last_step.line.weight)
    assert torch.equal(state["average"]["line.weight"], whole.line.weight)

    with pytest.raises(KeyboardInterrupt):
        train(Regression(), ToyStream(stop_at=6), config, tmp_path / "cut", tracker_mode="disabled")
    resumed = Regression()
    train(resumed, ToyStream(), config, tmp_path / "cut", resume=True, tracker_mode="disabled")
    assert torch.equal(resumed.line.weight, whole.line.weight)


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_the_other_optimizers_resume_bit_for_bit(tmp_path: Path, name: str) -> None:
    config = settings(optimizer=name, weight_decay=0.01)
    whole, resumed = Regression(), Regression()
    train(whole, ToyStream(), config, tmp_path / "whole", tracker_mode="disabled")
    with pytest.raises(KeyboardInterrupt):
        train(Regression(), ToyStream(stop_at=6), config, tmp_path / "cut", tracker_mode="disabled")
    train(resumed, ToyStream(), config, tmp_path / "cut", resume=True, tracker_mode="disabled")
    assert torch.equal(whole.line.weight, resumed.line.weight)


def test_nonfinite_step_is_skipped_with_its_norm_statistics(tmp_path: Path) -> None:
    """The run with a broken batch equals one whose stream never had it, at a constant rate."""
    objective = Regression(norm=True)
    train(objective, ToyStream(broken=frozenset([2])), settings(steps=3), tmp_path / "run", tracker_mode="disabled")
    reference = Regression(norm=True)
    train(reference, ToyStream(), settings(steps=2), tmp_path / "reference", tracker_mode="disabled")
    assert torch.equal(objective.norm.running_mean, reference.norm.running_mean)  # pyright: ignore
    assert all(torch.isfinite(value).all() for value in objective.state_dict().values())
    (line,) = (tmp_path / "run" / "nonfinite.jsonl").read_text().splitlines()
    assert json.loads(line)["keys"] == [f"2-{row}" for row in range(8)]


def test_ten_nonfinite_steps_in_a_row_stop_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    stream = ToyStream(broken=frozenset(range(2, 30)))
    with pytest.raises(DataError, match=r"10 steps in a row.*nonfinite\.jsonl"):
        train(Regression(), stream, settings(steps=30), tmp_path / "run", tracker_mode="disabled")
    folder = latest_checkpoint(tmp_path / "run")
    assert folder is not None
    assert folder.name == "step-12"


def test_accumulation_equals_a_big_batch(tmp_path: Path) -> None:
    class Doubled(ToyStream):
        def train(self, start: int) -> Iterator[ToyBatch]:
            small = ToyStream.train(self, start * 2)
            while True:
                one, two = next(small), next(small)
                yield ToyBatch(one.key + two.key, torch.cat([one.x, two.x]), torch.cat([one.y, two.y]), one.seed)

    small, big = Regression(), Regression()
    train(small, ToyStream(), settings(accumulate=2), tmp_path / "small", tracker_mode="disabled")
    train(big, Doubled(), settings(), tmp_path / "big", tracker_mode="disabled")
    torch.testing.assert_close(small.line.weight, big.line.weight, atol=1e-6, rtol=1e-5)
    ours, theirs = (read_metrics(tmp_path / name)[-1] for name in ("small", "big"))
    assert ours["fit/loss"] == pytest.approx(theirs["fit/loss"], rel=1e-4)


def test_frozen_parameters_and_scaled_groups(tmp_path: Path) -> None:
    """AdamW's first step moves every weight by the rate of its group, at any gradient."""
    objective = Regression()
    objective.line.bias.requires_grad_(False)
    before = objective.line.weight.detach().clone()
    bias = objective.line.bias.detach().clone()
    groups = [{"params": list(objective.line.parameters()), "scale": 10.0}]
    config = settings(steps=1, learning_rate=1e-3, warmup=0.0)
    train(objective, ToyStream(), config, tmp_path / "run", parameter_groups=groups, tracker_mode="disabled")
    moved = (objective.line.weight.detach() - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), rtol=1e-3, atol=0)
    assert torch.equal(objective.line.bias.detach(), bias)


def test_bf16_trains_and_restores_the_forward(tmp_path: Path) -> None:
    objective = Regression()
    config = settings(steps=100, precision="bf16")
    last = train(objective, ToyStream(64), config, tmp_path / "run", tracker_mode="disabled")
    assert last["fit/loss"] < 0.1
    assert objective.line.weight.dtype == torch.float32
    batch = next(ToyStream().train(0))
    expected = (batch.x @ objective.line.weight[0] + objective.line.bias - batch.y).square().mean()
    torch.testing.assert_close(objective(batch)["fit/loss"], expected, rtol=1e-5, atol=1e-6)
