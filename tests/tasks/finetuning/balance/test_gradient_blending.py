"""Weights of heads, computed by hand."""

import pytest
from modalgate.tasks.finetuning.balance.gradient_blending import Losses, blend_weights

BEFORE = {"rgb": Losses(2.0, 2.0), "audio": Losses(2.0, 2.0), "joint": Losses(2.0, 2.0)}


def test_weights_are_gain_over_squared_overfitting() -> None:
    after = {"rgb": Losses(1.0, 1.5), "audio": Losses(1.6, 1.8), "joint": Losses(0.2, 1.2)}
    raw = {"rgb": 0.5 / 0.5**2, "audio": 0.2 / 0.2**2, "joint": 0.8 / 1.0**2}
    expected = {name: value / sum(raw.values()) for name, value in raw.items()}
    assert blend_weights(BEFORE, after) == pytest.approx(expected)


def test_overfitting_has_a_floor_and_no_gain_gets_no_weight() -> None:
    after = {"rgb": Losses(1.5, 1.2), "audio": Losses(1.0, 2.5), "joint": Losses(1.5, 1.6)}
    raw = {"rgb": 0.8 / 0.01**2, "audio": 0.0, "joint": 0.4 / 0.1**2}
    assert blend_weights(BEFORE, after) == pytest.approx({k: v / sum(raw.values()) for k, v in raw.items()})
    assert blend_weights(BEFORE, BEFORE) == pytest.approx(dict.fromkeys(BEFORE, 1 / 3))
