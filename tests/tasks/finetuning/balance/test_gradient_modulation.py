"""Gradient modulation and gate warm-up against the published formula and hand-computed values."""

import math

import pytest
import torch
from modalgate.tasks.finetuning.balance.gradient_modulation import GateWarmup, GradientModulation
from torch import Tensor, nn


def two_streams(alpha: float) -> tuple[dict[str, nn.Parameter], GradientModulation]:
    weights = {name: nn.Parameter(torch.ones(4)) for name in ("rgb", "audio")}
    return weights, GradientModulation({name: [weight] for name, weight in weights.items()}, alpha)


def logits_for(share: float, rows: int = 6) -> Tensor:
    """Two classes, the first with probability `share`."""
    return torch.tensor([math.log(share), math.log(1 - share)]).expand(rows, 1, 2)


def test_the_leading_stream_is_slowed_by_the_published_factor() -> None:
    _, modulation = two_streams(0.5)
    label = torch.zeros(6, 1, dtype=torch.long)
    present = {"rgb": torch.ones(6, 1, dtype=torch.bool), "audio": torch.ones(6, 1, dtype=torch.bool)}
    modulation.measure({"rgb": logits_for(0.8), "audio": logits_for(0.4)}, label, present)
    assert modulation.factors["rgb"] == pytest.approx(1 - math.tanh(0.5 * 2))
    assert modulation.factors["audio"] == 1


def test_rows_without_the_modality_do_not_count() -> None:
    _, modulation = two_streams(1.0)
    label = torch.zeros(6, 1, dtype=torch.long)
    half = torch.tensor([[True]] * 3 + [[False]] * 3)
    logits = torch.cat([logits_for(0.6, 3), logits_for(0.01, 3)])
    present = {"rgb": half, "audio": torch.ones(6, 1, dtype=torch.bool)}
    modulation.measure({"rgb": logits, "audio": logits_for(0.3)}, label, present)
    assert modulation.factors["rgb"] == pytest.approx(1 - math.tanh(2))
    modulation.measure({"rgb": logits, "audio": logits_for(0.3)}, label, present | {"rgb": half & ~half})
    assert modulation.factors == {"rgb": 1.0, "audio": 1.0}


def test_gradients_are_scaled_and_keep_their_deviation() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(20_000))
    modulation = GradientModulation({"rgb": [weight]}, 1.0)
    modulation.factors["rgb"] = 0.25
    direction = torch.randn(20_000) * 3 + 8
    (weight * direction).sum().backward()
    assert weight.grad is not None
    noise = weight.grad - 0.25 * direction
    assert float(noise.mean()) == pytest.approx(0, abs=0.1)
    assert float(noise.std()) == pytest.approx(3, rel=0.03)
    weight.grad, modulation.active = None, False
    (weight * direction).sum().backward()
    torch.testing.assert_close(weight.grad, direction)


def test_a_held_gate_does_not_change() -> None:
    gate, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    warmup = GateWarmup([gate])
    (gate * other * 2).sum().backward()
    assert gate.grad is not None
    assert other.grad is not None
    assert gate.grad.tolist() == [0, 0]
    assert other.grad.tolist() == [2, 2]
    warmup.holding = False
    (gate * 3).sum().backward()
    assert gate.grad.tolist() == [3, 3]
