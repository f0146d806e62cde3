"""The schedule against its definition, and which parameters decay."""

import copy
import math

import pytest
import torch
from modalgate.fusion.mechanisms.gates import Fused, SigmoidGate
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.optimizer import (
    build_optimizer,
    cosine_with_warmup,
    resume_optimizer,
    set_learning_rate,
    without_unused,
)
from torch import Tensor, nn


def test_warmup_rises_in_equal_steps_then_half_a_cosine() -> None:
    shares = [cosine_with_warmup(step, 100, 0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10] == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert shares[99] == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)
    assert cosine_with_warmup(0, 1, 0.0) == 1.0
    assert cosine_with_warmup(0, 1, 1.0) == 1.0


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_norms_and_biases_do_not_decay_and_frozen_parameters_are_skipped(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, weight_decay=0.3))
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] == 0.3 for p in group["params"]]
    spared = [p for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]]
    assert [id(p) for p in decayed] == [id(model[0].weight)]
    assert {id(p) for p in spared} == {id(p) for p in (model[0].bias, *model[1].parameters(), model[2].bias)}


def test_groups_keep_their_scale_over_the_schedule() -> None:
    slow, fast = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    config = TrainConfig(steps=10, learning_rate=0.2, warmup=0.5)
    groups = [{"params": [slow]}, {"params": [fast], "scale": 10.0}]
    optimizer = build_optimizer(nn.Identity(), config, groups)
    for step in range(10):
        rate = set_learning_rate(optimizer, config, step)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, 10 * rate])
        assert rate == pytest.approx(0.2 * cosine_with_warmup(step, 10, 0.5))


def stepped(name: str, weight: torch.Tensor, gradients: list[torch.Tensor], decay: float) -> torch.Tensor:
    """`weight` after one step of rate 0.5 and momentum 0.8 per gradient."""
    parameter = nn.Parameter(weight.clone())
    config = TrainConfig(optimizer=name, learning_rate=0.5, momentum=0.8, weight_decay=decay)
    optimizer = build_optimizer(nn.Identity(), config, [{"params": [parameter]}])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def test_sgd_and_lars_against_their_equations() -> None:
    weight, gradients = torch.randn(3, 4), [torch.randn(3, 4), torch.randn(3, 4)]
    ours, velocity = weight.clone(), torch.zeros(3, 4)
    for gradient in gradients:
        gradient = gradient + 0.1 * ours
        velocity = 0.8 * velocity + gradient
        ours = ours - 0.5 * (gradient + 0.8 * velocity)  # Nesterov
    torch.testing.assert_close(stepped("sgd", weight, gradients, 0.1), ours)

    ours, velocity = weight.clone(), torch.zeros(3, 4)
    for gradient in gradients:
        trust = 0.001 * ours.norm() / (gradient.norm() + 0.1 * ours.norm())
        velocity = 0.8 * velocity + trust * (gradient + 0.1 * ours)
        ours = ours - 0.5 * velocity
    torch.testing.assert_close(stepped("lars", weight, gradients, 0.1), ours)


def test_resumed_optimizer_keeps_its_moments_and_uses_new_settings() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    groups = [{"params": [parameter]}]
    first = build_optimizer(nn.Identity(), TrainConfig(weight_decay=0.3), groups)
    parameter.grad = torch.ones(2, 2)
    first.step()
    second = build_optimizer(nn.Identity(), TrainConfig(weight_decay=0.1), groups)
    resume_optimizer(second, first.state_dict())
    assert second.param_groups[0]["weight_decay"] == 0.1
    assert torch.equal(second.state[parameter]["exp_avg"], first.state[parameter]["exp_avg"])


class OlderGate(SigmoidGate):
    """A gate as it was: with vectors of absent modalities, which have weight zero."""

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.missing = nn.Parameter(torch.zeros(len(modalities), width))
        self._parameters = {name: self._parameters[name] for name in ("nothing", "missing", "weight", "bias")}

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        return super().forward({name: values + 0 * self.missing.sum() for name, values in features.items()}, present)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("grouped", [False, True])
def test_an_older_optimizer_with_moments_of_absent_modalities_resumes(name: str, grouped: bool) -> None:
    torch.manual_seed(0)
    names = ("rgb", "audio")
    # Two weights have the shape of `missing`, so shapes do not tell which moments to drop.
    older = nn.ModuleDict({"first": nn.Linear(3, 2), "gate": OlderGate(names, 3), "last": nn.Linear(3, 2)})
    features = {key: torch.randn(5, 3) for key in names}
    present = {key: torch.rand(5) > 0.3 for key in names}

    def optimized(model: nn.ModuleDict) -> torch.optim.Optimizer:
        config = TrainConfig(optimizer=name, learning_rate=0.1, momentum=0.9, weight_decay=0.3)
        late = [*model["gate"].parameters(), *model["last"].parameters()]
        groups = [{"params": model["first"].parameters()}, {"params": late, "scale": 2.0}]
        return build_optimizer(model, config, groups if grouped else None)

    def train(model: nn.ModuleDict, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            embedding = model["gate"](features, present).embedding
            (model["first"](embedding) + model["last"](embedding)).square().sum().backward()
            optimizer.step()

    before = optimized(older)
    train(older, before)
    state = copy.deepcopy(older.state_dict())
    newer = nn.ModuleDict({"first": nn.Linear(3, 2), "gate": SigmoidGate(names, 3), "last": nn.Linear(3, 2)})
    newer.load_state_dict(state)
    after = optimized(newer)
    resume_optimizer(after, without_unused(copy.deepcopy(before.state_dict()), after, newer, state))
    train(older, before)
    train(newer, after)
    expected = older.state_dict()
    assert "gate.missing" in expected
    for key, value in newer.state_dict().items():
        torch.testing.assert_close(value, expected[key])
