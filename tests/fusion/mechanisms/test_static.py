"""Static weights against the loop, and their start."""

from collections.abc import Callable

import torch
from modalgate.fusion.mechanisms.static import StaticFusion
from torch import Tensor


def naive(fusion: StaticFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    raised = {name: fusion.theta[fusion.modalities.index(name)].exp() for name in row}
    weights = {name: value / sum(raised.values()) for name, value in raised.items()}
    return sum(weights[name] * row[name] for name in row), weights  # pyright: ignore[reportReturnType]


def test_it_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("static", naive)


def test_it_starts_as_the_mean() -> None:
    features = {name: torch.randn(3, 5) for name in "ab"}
    fused = StaticFusion(("a", "b"), 5)(features, {name: torch.ones(3, dtype=torch.bool) for name in "ab"})
    torch.testing.assert_close(fused.embedding, (features["a"] + features["b"]) / 2)
