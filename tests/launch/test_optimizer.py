"""The schedule against its definition, and which parameters decay."""

import math

import pytest
import torch
from modalgate.launch.optimizer import build_optimizer, cosine_with_warmup, set_learning_rate
from modalgate.launch.schema import TrainConfig
from torch import nn


def test_warmup_rises_in_equal_steps_then_half_a_cosine() -> None:
    shares = [cosine_with_warmup(step, 100, 0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10] == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert shares[99] == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)
    assert cosine_with_warmup(0, 1, 0.0) == 1.0
    assert cosine_with_warmup(0, 1, 1.0) == 1.0


def test_norms_and_biases_do_not_decay_and_frozen_ones_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.3))
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
