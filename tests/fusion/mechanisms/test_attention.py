"""Attention between modalities against loops that see only what is present."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.mechanisms.attention import BottleneckFusion, CrossAttentionFusion
from torch import Tensor, nn


def shares(row: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.tensor(1 / len(row), dtype=torch.float64) for name in row}


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention, one head and one query after the other."""
    size = queries.shape[-1] // heads
    rows = []
    for query in queries:
        parts = []
        for head in range(heads):
            place = slice(head * size, (head + 1) * size)
            raised = torch.stack([(query[place] @ key[place] / size**0.5).exp() for key in keys])
            parts.append(sum(w * v[place] for w, v in zip(raised / raised.sum(), values, strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def naive_cross(fusion: CrossAttentionFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    tokens = {name: value + fusion.kinds[fusion.modalities.index(name)] for name, value in row.items()}
    for block in fusion.blocks:
        projected = {name: block.project_in(block.norm(value)).chunk(3, dim=-1) for name, value in tokens.items()}
        after = {}
        for name, value in tokens.items():
            others = [other for other in tokens if other != name]
            if others:
                keys, values = (torch.cat([projected[other][part] for other in others]) for part in (1, 2))
                attended = attend(projected[name][0], keys, values, block.heads)
                value = value + torch.tanh(block.attention_gate) * block.project_out(attended)
            after[name] = value + torch.tanh(block.network_gate) * block.network(block.norm_after(value))
        tokens = after
    return sum(value.mean(dim=0) for value in tokens.values()) / len(tokens), shares(row)


def naive_bottleneck(fusion: BottleneckFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    tokens, shared = dict(row), fusion.bottleneck
    for layer in fusion.layers:
        told = []
        for name in row:
            block = layer[fusion.modalities.index(name)]
            joined = torch.cat([tokens[name], shared])
            attention = block.self_attn
            normed = block.norm1(joined)
            query, key, value = (
                normed @ weight.T + bias
                for weight, bias in zip(
                    attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
                )
            )
            joined = joined + attention.out_proj(attend(query, key, value, attention.num_heads))
            joined = joined + block.linear2(nn.functional.gelu(block.linear1(block.norm2(joined))))
            tokens[name], said = joined[: len(tokens[name])], joined[len(tokens[name]) :]
            told.append(said)
        shared = sum(told) / len(told)
    return sum(value.mean(dim=0) for value in tokens.values()) / len(tokens), shares(row)


def test_cross_attention_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("cross", naive_cross, tokens=2, heads=2)


def test_bottlenecks_equal_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("bottleneck", naive_bottleneck, tokens=2, heads=2, bottlenecks=2)


def test_cross_attention_starts_as_the_mean() -> None:
    torch.manual_seed(0)
    fusion = CrossAttentionFusion(("a", "b"), 8)
    features = {"a": torch.randn(3, 4, 8), "b": torch.randn(3, 8)}
    fused = fusion(features, {name: torch.ones(3, dtype=torch.bool) for name in "ab"})
    expected = (features["a"].mean(dim=1) + features["b"] + fusion.kinds.sum(dim=0)) / 2
    torch.testing.assert_close(fused.embedding, expected)


@pytest.mark.parametrize("width", [6, 7])
def test_heads_divide_the_width(width: int) -> None:
    for kind in (CrossAttentionFusion, BottleneckFusion):
        fused = kind(("a",), width)({"a": torch.randn(2, 3, width)}, {"a": torch.ones(2, dtype=torch.bool)})
        assert fused.embedding.shape == (2, width)
