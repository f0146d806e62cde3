"""Products of features against explicit sums over index tuples."""

from collections.abc import Callable
from itertools import product

import torch
from modalgate.fusion.mechanisms.products import BilinearFusion, LowRankFusion, TensorFusion
from torch import Tensor


def shares(row: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.tensor(1 / len(row), dtype=torch.float64) for name in row}


def naive_tensor(fusion: TensorFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    inner = fusion.reduce.shape[1]
    factors = []
    for number, name in enumerate(fusion.modalities):
        small = fusion.reduce[number] @ row[name] if name in row else torch.zeros(inner, dtype=torch.float64)
        factors.append([*small, torch.ones((), dtype=torch.float64)])
    entries = []
    for places in product(range(inner + 1), repeat=len(factors)):
        entry = torch.ones((), dtype=torch.float64)
        for factor, place in zip(factors, places, strict=True):
            entry = entry * factor[place]
        entries.append(entry)
    return fusion.head.weight @ torch.stack(entries) + fusion.head.bias, shares(row)


def naive_lowrank(fusion: LowRankFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    embedding = fusion.bias
    for rank in range(len(fusion.mix)):
        term = torch.ones(4, dtype=torch.float64)
        for number, name in enumerate(fusion.modalities):
            feature = row.get(name, torch.zeros(4, dtype=torch.float64))
            term = term * (torch.cat([feature, torch.ones(1)]).double() @ fusion.factors[number, rank])
        embedding = embedding + fusion.mix[rank] * term
    return embedding, shares(row)


def naive_bilinear(fusion: BilinearFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sketch of the outer product itself: signs multiply and places add, around the circle."""
    pooled = [torch.zeros((), dtype=torch.float64) for _ in range(fusion.sketch)]
    for channels in product(range(4), repeat=len(row)):
        place, value = 0, torch.ones((), dtype=torch.float64)
        for name, channel in zip(row, channels, strict=True):
            number = fusion.modalities.index(name)
            place += int(fusion.places[number, channel])
            value = value * row[name][channel] * fusion.signs[number, channel]
        pooled[place % fusion.sketch] = pooled[place % fusion.sketch] + value
    vector = torch.stack(pooled)
    rooted = vector / (vector.abs() + 1e-6).sqrt()
    return fusion.head.weight @ (rooted / rooted.norm()) + fusion.head.bias, shares(row)


def test_the_tensor_product_equals_the_sum(equals_the_loop: Callable) -> None:
    equals_the_loop("tensor", naive_tensor, inner=2)


def test_the_low_rank_product_equals_the_sum(equals_the_loop: Callable) -> None:
    equals_the_loop("lowrank", naive_lowrank, rank=3)


def test_the_compact_product_is_the_sketch_of_the_outer_product(equals_the_loop: Callable) -> None:
    equals_the_loop("bilinear", naive_bilinear, sketch=5)


def test_inner_products_survive_the_sketch_on_average() -> None:
    """Gao et al. 2016: E<psi(x), psi(y)> = <x, y> over the draws of places and signs."""
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    found = []
    for seed in range(3000):
        fusion = BilinearFusion(("a",), 6, sketch=8, seed=seed)
        sketches = torch.zeros(2, 8, dtype=torch.float64)
        for row, value in zip(sketches, (one, other), strict=True):
            row.scatter_add_(0, fusion.places[0], value * fusion.signs[0].double())
        found.append(sketches[0] @ sketches[1])
    estimates = torch.stack(found)
    assert abs(estimates.mean() - one @ other) < 4 * estimates.std() / 3000**0.5
