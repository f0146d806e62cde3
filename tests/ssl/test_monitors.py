"""Monitored figures against closed forms."""

import math

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.fusion.mechanisms_by_name import build_fusion
from modalgate.ssl.monitors import (
    alignment,
    effective_rank,
    gate_entropy,
    gate_gradient,
    gate_spread,
    segment_difference,
    uniformity,
)
from torch import Tensor
from torch.nn.functional import normalize


def encoded_of(embedding: Tensor, weights: Tensor, absent: tuple[int, ...] = ()) -> Encoded:
    rows = len(embedding)
    audio = torch.tensor([[row not in absent] for row in range(rows)])
    present = {"rgb": torch.ones(rows, 1, dtype=torch.bool), "audio": audio}
    features = {"rgb": embedding[:, None], "audio": -embedding[:, None]}
    zero = torch.zeros(())
    return Encoded(
        ("rgb", "audio"), features, present, embedding[:, None], weights[:, None], zero, torch.zeros(rows, 1)
    )


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_counts_directions_used_alike(rank: int) -> None:
    rows = torch.zeros(2 * rank, 8)
    rows[torch.arange(2 * rank), torch.arange(2 * rank) % rank] = torch.tensor([1.0, -1.0]).repeat_interleave(rank)
    assert float(effective_rank(rows)) == pytest.approx(rank, rel=1e-4)


def test_uniformity_and_alignment_equal_loops_over_pairs() -> None:
    torch.manual_seed(0)
    rows = normalize(torch.randn(6, 4), dim=-1)
    pairs = [math.exp(-2 * float((rows[i] - rows[j]).square().sum())) for i in range(6) for j in range(i)]
    assert float(uniformity(rows)) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)
    found = alignment(encoded_of(rows, torch.full((6, 2), 0.5), absent=(2,)))
    assert found is not None
    assert float(found) == pytest.approx(4, rel=1e-5)


def test_gate_entropy_is_one_for_equal_weights_and_zero_for_one_that_takes_all() -> None:
    rows = torch.randn(4, 8)
    for weights, expected in (([0.2, 0.2], 1.0), ([0.7, 0.0], 0.0), ([0.75, 0.25], 0.8113)):
        found = gate_entropy(encoded_of(rows, torch.tensor([weights] * 4)))
        assert found is not None
        assert float(found) == pytest.approx(expected, abs=1e-4)
    assert gate_entropy(encoded_of(rows, torch.ones(4, 2), absent=(0, 1, 2, 3))) is None


def test_the_spread_is_the_deviation_of_weights_over_whole_rows() -> None:
    weights = torch.tensor([[0.2, 0.8], [0.6, 0.4], [1.0, 0.0], [0.5, 0.5]])
    found = gate_spread(encoded_of(torch.randn(4, 8), weights, absent=(3,)))
    assert found is not None
    assert float(found) == pytest.approx(
        0.2
    )  # of .2 and .6, and of .8 and .4: a row with a hidden one does not count
    assert float(gate_spread(encoded_of(torch.randn(4, 8), torch.full((4, 2), 0.3))) or 0) == 0
    assert gate_spread(encoded_of(torch.randn(2, 8), weights[:2], absent=(0, 1))) is None


@pytest.mark.parametrize(
    ("fusion", "learns"), [("softmax", True), ("sigmoid", True), ("vector", True), ("concat", False)]
)
def test_gate_gradient_needs_a_loss_on_the_embedding(fusion: str, learns: bool) -> None:
    torch.manual_seed(0)
    mechanism = build_fusion(fusion, ("rgb", "audio"), 4, {})
    features = {name: torch.randn(6, 4, requires_grad=True) for name in ("rgb", "audio")}
    embedding = mechanism(features, dict.fromkeys(features, torch.ones(6, dtype=torch.bool))).embedding
    read = gate_gradient(embedding.square().sum(), mechanism, embedding)
    unread = gate_gradient(sum(feature.sum() for feature in features.values()), mechanism, embedding)  # pyright: ignore
    if learns:
        assert read is not None
        assert unread is not None
        assert float(read) > 0
        assert float(unread) == 0
    else:
        assert read is None
        assert unread is None
    # An embedding that other parameters made says nothing of this gate's.
    assert gate_gradient(features["rgb"].sum(), mechanism, features["audio"] * 1) is None


def test_segments_of_a_static_clip_hardly_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (6, 1, 1, 3, 32, 32), generator=generator).float()
    noise = torch.randint(0, 3, (6, 3, 4, 3, 32, 32), generator=generator).float()
    still = (clips + noise).clamp(0, 255).to(torch.uint8)
    moving = torch.stack([still[:, k].roll(5 * k, dims=-1) for k in range(3)], dim=1)
    flow = torch.randint(126, 130, (6, 3, 4, 2, 32, 32), generator=generator).to(torch.uint8)
    present = {name: torch.ones(6, 3, dtype=torch.bool) for name in ("rgb", "flow", "audio")}
    alike = segment_difference({"rgb": still, "flow": flow}, present)
    assert alike is not None
    assert float(alike) < 0.03
    assert float(segment_difference({"rgb": moving}, present) or 0) > 0.5
    # Flow counts where there are no pictures, and sound in any case.
    assert float(segment_difference({"flow": flow}, present) or 0) > 0.5
    sound = torch.randn(6, 3, 100, generator=generator)
    assert float(segment_difference({"rgb": still, "audio": sound}, present) or 0) > 0.5
    assert segment_difference({"rgb": still[:1]}, {"rgb": present["rgb"][:1]}) is None


def test_the_difference_of_segments_is_a_ratio_of_means() -> None:
    values = torch.tensor([[0.0, 1.0, 3.0], [10.0, 10.0, 10.0]])[..., None, None].expand(2, 3, 5, 1)
    whole = torch.ones(2, 3, dtype=torch.bool)
    found = segment_difference({"inertial": values}, {"inertial": whole})
    assert float(found or 0) == pytest.approx(((1 + 2 + 0 + 0) / 4) / ((10 + 9 + 7) / 3))
