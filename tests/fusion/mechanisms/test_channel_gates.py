"""Gates per channel against loops over channels."""

from collections.abc import Callable

import torch
from modalgate.fusion.mechanisms.channel_gates import GatedMultimodalUnit, VectorGate
from torch import Tensor


def logistic(value: Tensor) -> Tensor:
    return 1 / (1 + (-value).exp())


def naive_vector(fusion: VectorGate, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    channels = [torch.zeros((), dtype=torch.float64) for _ in range(4)]
    weights = {}
    for name, feature in row.items():
        number = fusion.modalities.index(name)
        gates = []
        for channel in range(4):
            score = fusion.bias[number, channel]
            for place in range(4):
                score = score + feature[place] * fusion.weight[number, channel, place]
            gates.append(logistic(score))
            channels[channel] = channels[channel] + gates[-1] * feature[channel]
        weights[name] = sum(gates) / 4
    return torch.stack(channels), weights


def naive_unit(fusion: GatedMultimodalUnit, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    together = torch.cat([row.get(name, fusion.missing[m]) for m, name in enumerate(fusion.modalities)])
    channels = [torch.zeros((), dtype=torch.float64) for _ in range(4)]
    weights = {}
    for name, feature in row.items():
        number = fusion.modalities.index(name)
        gates = []
        for channel in range(4):
            content = sum(feature[place] * fusion.content[number, channel, place] for place in range(4))
            score = sum(together[place] * fusion.weight[number, channel, place] for place in range(12))
            gates.append(logistic(score))  # pyright: ignore[reportArgumentType]
            channels[channel] = channels[channel] + gates[-1] * torch.tanh(content)  # pyright: ignore
        weights[name] = sum(gates) / 4
    return torch.stack(channels), weights


def test_the_vector_gate_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("vector", naive_vector)


def test_the_gated_multimodal_unit_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("gmu", naive_unit)
