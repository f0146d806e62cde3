"""What is watched while training, against closed forms; and what it warns of."""

import math

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.monitors import alignment, collapse_warnings, effective_rank, gate_entropy, monitors, uniformity
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


def test_a_collapsed_gate_and_embedding_are_named_with_a_remedy() -> None:
    torch.manual_seed(0)
    healthy = {k: float(v) for k, v in monitors(encoded_of(torch.randn(200, 16), torch.full((200, 2), 0.5))).items()}
    assert collapse_warnings(healthy, 16) == []
    rows = torch.ones(200, 16) + 1e-3 * torch.randn(200, 16)
    sick = {k: float(v) for k, v in monitors(encoded_of(rows, torch.tensor([[0.999, 0.001]] * 200))).items()}
    gate, embedding = collapse_warnings(sick, 16)
    assert "collapsed onto rgb (mean weight 1.00)" in gate
    assert "model.modality_dropout" in gate
    assert "cross_modal" in embedding


def test_a_trusted_modality_alone_is_no_collapse() -> None:
    assert collapse_warnings({"gate/rgb": 1.0, "gate/loss": 0.0, "embedding/std": 0.25}, 16) == []
    assert collapse_warnings({"gate/rgb": 0.97, "gate/audio": 0.03, "gate/entropy": 0.3}, 16) == []
