"""Streams that reshape each other, against loops, and their neutral start."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.mechanisms.exchange import FilmFusion, TransferModule
from modalgate.fusion.mechanisms_by_name import build_fusion
from torch import Tensor


def naive_transfer(fusion: TransferModule, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    squeezed = {name: feature if feature.dim() == 1 else sum(feature) / len(feature) for name, feature in row.items()}
    together = torch.cat([squeezed.get(name, fusion.missing[m]) for m, name in enumerate(fusion.modalities)])
    joint = (fusion.squeeze.weight @ together + fusion.squeeze.bias).clamp_min(0)
    embedding, weights = torch.zeros(4, dtype=torch.float64), {}
    for name, feature in row.items():
        number = fusion.modalities.index(name)
        factors = 2 / (1 + (-(fusion.excite[number] @ joint) - fusion.bias[number]).exp())
        scaled = [token * factors for token in (feature if feature.dim() == 2 else feature[None])]
        embedding = embedding + sum(scaled) / len(scaled) / len(row)
        weights[name] = sum(factors) / 4 / len(row)
    return embedding, weights


def naive_film(fusion: FilmFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    embedding = torch.zeros(4, dtype=torch.float64)
    for name, feature in row.items():
        number = fusion.modalities.index(name)
        others = [value for other, value in row.items() if other != name]
        if others:
            hidden = (fusion.condition[number] @ (sum(others) / len(others))).clamp_min(0)
            both = fusion.modulate[number] @ hidden
            feature = (1 + both[:4]) * feature + both[4:]
        embedding = embedding + feature / len(row)
    return embedding, {name: torch.tensor(1 / len(row), dtype=torch.float64) for name in row}


@pytest.mark.parametrize("tokens", [0, 2])
def test_the_transfer_module_equals_the_loop(equals_the_loop: Callable, tokens: int) -> None:
    equals_the_loop("mmtm", naive_transfer, tokens=tokens)


def test_film_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("film", naive_film, hidden=3)


@pytest.mark.parametrize("name", ["mmtm", "film"])
def test_it_starts_as_the_mean(name: str) -> None:
    features = {key: torch.randn(3, 5) for key in "ab"}
    fused = build_fusion(name, ("a", "b"), 5, {})(features, {key: torch.ones(3, dtype=torch.bool) for key in "ab"})
    torch.testing.assert_close(fused.embedding, (features["a"] + features["b"]) / 2)
