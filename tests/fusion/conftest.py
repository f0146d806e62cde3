"""Comparison of a fusion mechanism with a loop over rows."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from modalgate.fusion.mechanisms_by_name import build_fusion
from torch import Tensor, nn

NAMES = ("rgb", "flow", "audio")
WIDTH = 4
Row = dict[str, Tensor]


@pytest.fixture
def equals_the_loop() -> Callable[..., None]:
    """`equals_the_loop(name, naive, tokens=0, **arguments)`: values and gradients, one row per subset of modalities.

    `naive(fusion, row)` gets the features of what is present in one row, and returns the embedding and the weights
    by modality.
    """

    def compare(
        name: str, naive: Callable[[nn.Module, Row], tuple[Tensor, Row]], tokens: int = 0, **arguments: object
    ) -> None:
        torch.manual_seed(4)
        fusion = build_fusion(name, NAMES, WIDTH, arguments).double().eval()
        for parameter in fusion.parameters():
            nn.init.normal_(parameter, std=0.5)
        subsets = [frozenset(s) for n in range(len(NAMES) + 1) for s in combinations(NAMES, n)]
        features = {}
        for number, key in enumerate(NAMES):
            shape = (len(subsets), tokens + number, WIDTH) if tokens else (len(subsets), WIDTH)
            features[key] = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        present = {key: torch.tensor([key in subset for subset in subsets]) for key in NAMES}
        fused = fusion(features, present)
        rows, weights = [], []
        for number, subset in enumerate(subsets):
            row = {key: features[key][number] for key in NAMES if key in subset}
            embedding, by_name = naive(fusion, row) if row else (fusion.nothing, {})
            rows.append(embedding)
            zero = torch.zeros((), dtype=torch.float64)
            weights.append(torch.stack([by_name.get(key, zero) for key in NAMES]))
        expected = torch.stack(rows), torch.stack(weights)
        torch.testing.assert_close(fused.embedding, expected[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(fused.weights, expected[1], rtol=1e-9, atol=1e-11)
        inputs = [*features.values(), *fusion.parameters()]
        factors = [torch.randn(value.shape, dtype=torch.float64) for value in expected]
        ours, theirs = (
            torch.autograd.grad(
                sum((value * factor).sum() for value, factor in zip(pair, factors, strict=True)),
                inputs,
                allow_unused=True,
            )
            for pair in ((fused.embedding, fused.weights), expected)
        )
        assert any(gradient is not None and (gradient != 0).any() for gradient in ours)
        for value, mine, other in zip(inputs, ours, theirs, strict=True):
            mine = torch.zeros_like(value) if mine is None else mine
            other = torch.zeros_like(value) if other is None else other
            torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)

    return compare
