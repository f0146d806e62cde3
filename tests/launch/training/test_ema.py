"""The moving average against its definition."""

import pytest
import torch
from modalgate.launch.training.ema import WeightAverage
from torch import nn


def test_average_follows_the_recursion_and_skips_frozen_weights_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    model[1].weight.requires_grad_(False)
    average = WeightAverage(model, 0.3)
    expected = model[0].weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            model[0].weight += torch.randn(2, 2)
            model[1].weight += 1
            model[1].running_mean += 1
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    torch.testing.assert_close(average.state_dict()["0.weight"], expected)
    assert sorted(average.state_dict()) == ["0.weight", "1.bias"]
    average.put_in_place()
    torch.testing.assert_close(model[0].weight.detach(), expected)
    assert model[1].weight.tolist() == [6, 6]
    assert model[1].running_mean.tolist() == [5, 5]


@pytest.mark.parametrize("step", [0, 90, 10_000])
def test_the_decay_rises_to_its_largest(step: int) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.95)
    nn.init.ones_(model.weight)
    average.update(step)
    assert float(average.state_dict()["weight"]) == pytest.approx({0: 0.9, 90: 0.09, 10_000: 0.05}[step])


def test_loaded_average_continues() -> None:
    model = nn.Linear(2, 1)
    first, second = WeightAverage(model, 0.9), WeightAverage(nn.Linear(2, 1), 0.9)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    model.weight.data += 1
    first.update(3)
    assert not torch.equal(first.state_dict()["weight"], second.state_dict()["weight"])


def test_averaged_weights_are_in_place_only_inside_the_context() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.95)
    nn.init.ones_(model.weight)
    average.update(0)
    with average.in_place():
        assert model.weight.item() == pytest.approx(0.9)
    assert model.weight.item() == 1.0
