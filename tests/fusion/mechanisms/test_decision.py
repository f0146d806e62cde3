"""Fusion of decisions equals loops over classes, and each rule has its known properties."""

import math
from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.mechanisms.decision import Decision, EvidentialDecision, ProductDecision, WeightedMeanDecision
from modalgate.fusion.mechanisms_by_name import build_fusion
from torch import Tensor

CLASSES = 4


def chances(logits: Tensor) -> list[Tensor]:
    raised = [value.exp() for value in logits]
    return [value / sum(raised) for value in raised]


def one() -> Tensor:
    return torch.ones((), dtype=torch.float64)


def naive_mean(fusion: Decision, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    by_name = {name: chances(logits) for name, logits in row.items()}
    mixed = [sum(chance[k] for chance in by_name.values()) / len(row) for k in range(CLASSES)]
    return torch.stack(mixed).log(), {name: one() / len(row) for name in row}  # pyright: ignore


def naive_product(fusion: ProductDecision, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    by_name = {name: chances(logits) for name, logits in row.items()}
    joint = []
    for k in range(CLASSES):
        term = one() / fusion.log_prior[k].exp() ** (len(row) - 1)
        for chance in by_name.values():
            term = term * chance[k]
        joint.append(term)
    return (torch.stack(joint) / sum(joint)).log(), {name: one() for name in row}


def naive_entropy(fusion: Decision, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    by_name = {name: chances(logits) for name, logits in row.items()}
    sure = {
        name: 1 + sum(value * value.log() for value in chance) / math.log(CLASSES) for name, chance in by_name.items()
    }
    weights = {name: value / sum(sure.values()) for name, value in sure.items()}
    mixed = [sum(weights[name] * by_name[name][k] for name in row) for k in range(CLASSES)]
    return torch.stack(mixed).log(), weights  # pyright: ignore


def naive_energy(fusion: Decision, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    weights = {name: sum(value.exp() for value in logits).log() / 10 for name, logits in row.items()}
    return sum(weights[name] * row[name] for name in row), weights  # pyright: ignore


def naive_evidential(fusion: Decision, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Only what is present takes part, and conflict is summed over pairs of different classes."""
    opinions = {}
    for name, logits in row.items():
        evidence = [(1 + value.exp()).log() for value in logits]
        strength = sum(evidence) + CLASSES
        opinions[name] = ([value / strength for value in evidence], CLASSES / strength)
    (belief, doubt), *others = opinions.values()
    for other, unsure in others:
        conflict = sum(belief[i] * other[j] for i in range(CLASSES) for j in range(CLASSES) if i != j)
        belief = [
            (belief[k] * other[k] + belief[k] * unsure + other[k] * doubt) / (1 - conflict) for k in range(CLASSES)
        ]
        doubt = doubt * unsure / (1 - conflict)
    scores = torch.stack([(value + doubt / CLASSES).log() for value in belief])
    return scores, {name: 1 - opinion[1] for name, opinion in opinions.items()}


def test_the_mean_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("mean", naive_mean)


def test_the_weighted_mean_equals_the_loop() -> None:
    fusion = WeightedMeanDecision(("a", "b", "c"), CLASSES).double()
    fusion.set_votes({"a": 0.75, "b": 0.0, "c": 0.25})
    logits = {name: torch.randn(8, CLASSES, dtype=torch.float64) for name in "abc"}
    here = torch.tensor([[row >> place & 1 for place in range(3)] for row in range(8)], dtype=torch.bool)
    found = fusion(logits, {name: here[:, place] for place, name in enumerate("abc")})
    for row in range(1, 8):
        there = {name: weight for name, weight, seen in zip("abc", (0.75, 0.0, 0.25), here[row], strict=True) if seen}
        if not sum(there.values()):
            there = dict.fromkeys(there, 1.0)
        mixed = sum(
            weight / sum(there.values()) * torch.stack(chances(logits[name][row])) for name, weight in there.items()
        )
        assert isinstance(mixed, Tensor)
        torch.testing.assert_close(found.embedding[row].exp(), mixed, rtol=1e-6, atol=1e-8)
        weights = torch.tensor([there.get(name, 0.0) / sum(there.values()) for name in "abc"], dtype=torch.float64)
        torch.testing.assert_close(found.weights[row], weights)


def test_the_weighted_mean_starts_as_the_mean(equals_the_loop: Callable) -> None:
    equals_the_loop("weighted_mean", naive_mean)


def test_votes_must_cover_every_modality() -> None:
    fusion = WeightedMeanDecision(("a", "b"), CLASSES)
    for votes in ({"a": 1.0}, {"a": 1.0, "b": -0.1}):
        with pytest.raises(ValueError, match="a weight of at least 0 for each"):
            fusion.set_votes(votes)


def test_the_product_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("product", naive_product)
    equals_the_loop("product", naive_product, prior=[1.0, 2.0, 3.0, 4.0])


def test_entropy_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("entropy", naive_entropy)


def test_energy_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("energy", naive_energy)


def test_evidence_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("evidential", naive_evidential)


def everyone(rows: int) -> dict[str, Tensor]:
    return {name: torch.ones(rows, dtype=torch.bool) for name in "ab"}


def test_the_product_is_bayes_where_modalities_are_independent_given_the_class() -> None:
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    # P(x | y) of two discrete modalities; each head computes the posterior of its modality.
    tables = {name: torch.rand(3, 6, dtype=torch.float64) for name in "ab"}
    tables = {name: table / table.sum(dim=1, keepdim=True) for name, table in tables.items()}
    first, second = (grid.flatten() for grid in torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"))
    posteriors = {
        name: (prior[:, None] * tables[name][:, seen]).T.log() for name, seen in (("a", first), ("b", second))
    }
    fusion = build_fusion("product", ("a", "b"), 3, {"prior": prior.tolist()}).double()
    found = fusion(posteriors, everyone(36)).embedding.exp()
    joint = (prior[:, None] * tables["a"][:, first] * tables["b"][:, second]).T
    torch.testing.assert_close(found, joint / joint.sum(dim=1, keepdim=True), rtol=1e-6, atol=1e-8)


def test_an_opinion_without_evidence_is_the_identity() -> None:
    fusion = EvidentialDecision(("a", "b"), 3).double()
    certain = torch.tensor([[4.0, -2.0, 0.0]], dtype=torch.float64)
    empty = torch.full((1, 3), -800.0, dtype=torch.float64)
    with_empty = fusion({"a": certain, "b": empty}, everyone(1)).embedding
    alone = fusion({"a": certain, "b": empty}, everyone(1) | {"b": torch.tensor([False])}).embedding
    torch.testing.assert_close(with_empty, alone)


def test_contradicting_opinions_stay_finite() -> None:
    for name in ("mean", "weighted_mean", "product", "entropy", "energy", "evidential", "opinion"):
        fusion = build_fusion(name, ("a", "b"), 3, {}).double()
        one_way = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.float64, requires_grad=True)
        fused = fusion({"a": one_way, "b": one_way.flip(-1)}, everyone(1))
        assert fused.embedding.isfinite().all()
        fused.embedding.sum().backward()
        assert one_way.grad is not None
        assert one_way.grad.isfinite().all()


def test_an_expert_of_weight_two_counts_as_two_experts() -> None:
    torch.manual_seed(0)
    values, there = torch.randn(6, 2, CLASSES).log_softmax(dim=-1), torch.ones(6, 3, dtype=torch.bool)
    prior = [0.4, 0.3, 0.2, 0.1]
    two = ProductDecision(("a", "b"), CLASSES, prior)
    three = ProductDecision(("a", "b", "c"), CLASSES, prior)
    twice = two.fuse(values, torch.tensor([[1.0, 2.0]]).expand(6, 2), there[:, :2]).embedding
    expected = three.fuse(values[:, [0, 1, 1]], torch.ones(6, 3), there).embedding
    torch.testing.assert_close(twice, expected)
