"""The schedule against its definition, and which parameters decay."""

import math

import pytest
import torch
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.optimizer import (
    build_optimizer,
    cosine_with_warmup,
    resume_optimizer,
    set_learning_rate,
)
from torch import nn


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
