"""Pooling over time, against the equations."""

import pytest
import torch
from modalgate.fusion.encoders.pooling import POOLINGS, build_pooling
from modalgate.shards.errors import RequestError
from torch import Tensor, nn


def pooled(name: str, sequence: Tensor) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return build_pooling(name, sequence.shape[-1]).double()(sequence)


@pytest.fixture
def sequence() -> Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_mean_ignores_order(sequence: Tensor) -> None:
    torch.testing.assert_close(pooled("mean", sequence), torch.stack([row.sum(dim=0) / 5 for row in sequence]))
    torch.testing.assert_close(pooled("mean", sequence.flip(1)), pooled("mean", sequence))


@pytest.mark.parametrize("name", POOLINGS)
def test_rows_are_independent(name: str, sequence: Tensor) -> None:
    alone = torch.cat([pooled(name, row[None]) for row in sequence])
    torch.testing.assert_close(pooled(name, sequence), alone)
    assert alone.shape == (3, 8)


def test_gru_equals_its_equations(sequence: Tensor) -> None:
    torch.manual_seed(0)
    pooling = build_pooling("gru", 8).double()
    gru = pooling.gru
    assert isinstance(gru, nn.GRU)
    tokens = torch.nn.functional.layer_norm(sequence, (8,))
    state = sequence.new_zeros(3, 8)
    for step in range(5):
        x_reset, x_update, x_new = (tokens[:, step] @ gru.weight_ih_l0.T + gru.bias_ih_l0).chunk(3, dim=-1)
        h_reset, h_update, h_new = (state @ gru.weight_hh_l0.T + gru.bias_hh_l0).chunk(3, dim=-1)
        update = torch.sigmoid(x_update + h_update)
        candidate = torch.tanh(x_new + torch.sigmoid(x_reset + h_reset) * h_new)
        state = (1 - update) * candidate + update * state
    torch.testing.assert_close(pooling(sequence), tokens.mean(dim=1) + state)


def test_attention_equals_its_equations(sequence: Tensor) -> None:
    torch.manual_seed(0)
    pooling = build_pooling("attention", 8).double()
    for parameter in pooling.parameters():
        nn.init.normal_(parameter, std=0.5)
    attention, norm, time = pooling.attention, pooling.norm, pooling.time
    assert isinstance(attention, nn.MultiheadAttention)
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(time, nn.Linear)
    places = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)[:, None]
    tokens = torch.nn.functional.layer_norm(sequence, (8,)) * norm.weight + norm.bias
    tokens = tokens + places * time.weight[:, 0] + time.bias
    assert attention.in_proj_weight is not None
    to_query, to_key, to_value = attention.in_proj_weight.chunk(3)
    of_query, of_key, of_value = attention.in_proj_bias.chunk(3)
    query = to_query @ pooling.query[0, 0] + of_query  # pyright: ignore
    keys, values = tokens @ to_key.T + of_key, tokens @ to_value.T + of_value
    heads = []
    for head in range(4):
        part = slice(2 * head, 2 * head + 2)
        shares = torch.softmax(keys[..., part] @ query[part] / 2**0.5, dim=1)
        heads.append((shares[..., None] * values[..., part]).sum(dim=1))
    expected = torch.cat(heads, dim=-1) @ attention.out_proj.weight.T + attention.out_proj.bias
    torch.testing.assert_close(pooling(sequence), expected)


def test_attention_accepts_a_width_not_divisible_by_four() -> None:
    assert pooled("attention", torch.randn(2, 3, 7, dtype=torch.float64)).shape == (2, 7)


def test_an_unknown_pooling_gets_the_nearest() -> None:
    with pytest.raises(RequestError, match="unknown pooling 'atention': did you mean 'attention'"):
        build_pooling("atention", 8)
