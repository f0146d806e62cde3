"""Sparse experts: the choice against a loop, the load against a simulation, the balance of free experts."""

from collections.abc import Callable

import torch
from modalgate.fusion.mechanisms.experts import TopKExperts, _chance_of_choice, _largest
from modalgate.fusion.mechanisms.gates import AuxiliarySums
from torch import Tensor


def naive(fusion: TopKExperts, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    names = fusion.modalities
    entries = [row.get(name, fusion.missing[m]) for m, name in enumerate(names)]
    everything = torch.cat([*entries, torch.tensor([name in row for name in names]).double()])
    scores = [everything @ fusion.gate[:, expert] for expert in range(len(names) + fusion.free)]
    allowed = [e for e in range(len(scores)) if e >= len(names) or names[e] in row]
    chosen = sorted(allowed, key=lambda expert: -float(scores[expert]))[: fusion.k]
    total = sum(scores[expert].exp() for expert in chosen)
    embedding, weights = torch.zeros(4, dtype=torch.float64), {name: torch.zeros(()).double() for name in row}
    for expert in chosen:
        share = scores[expert].exp() / total
        if expert < len(names):
            embedding = embedding + share * fusion.own[expert](row[names[expert]])
            weights[names[expert]] = weights[names[expert]] + share
        else:
            embedding = embedding + share * fusion.shared[expert - len(names)](everything)
            weights = {name: weight + share / len(row) for name, weight in weights.items()}
    return embedding, weights


def test_it_equals_the_loop(equals_the_loop: Callable) -> None:
    for k in (1, 2, 9):
        equals_the_loop("topk", naive, k=k, free=2, hidden=5)


def test_ties_go_to_the_first_experts() -> None:
    """An untrained gate gives equal scores: the choice must not depend on the library."""
    never = float("-inf")
    values = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 1.0, 2.0], [never, 0.0, never, never]])
    expected = [[True, True, False, False], [False, True, False, True], [True, True, False, False]]
    assert _largest(values, 2).tolist() == expected
    assert _largest(values, 9).all()


def test_the_load_is_the_chance_that_an_expert_is_chosen_again() -> None:
    """Every expert's own noise drawn anew 40,000 times while the others keep theirs."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(5, generator=generator, dtype=torch.float64)
    deviation = torch.rand(5, generator=generator, dtype=torch.float64) + 0.3
    noisy = clean + torch.randn(5, generator=generator, dtype=torch.float64) * deviation
    chances = _chance_of_choice(clean, noisy, deviation, 2)
    for expert in range(5):
        drawn = noisy.repeat(40_000, 1)
        drawn[:, expert] = clean[expert] + torch.randn(40_000, generator=generator).double() * deviation[expert]
        often = (drawn.topk(2, dim=-1).indices == expert).any(dim=-1).double().mean()
        assert abs(often - chances[expert]) < 4 * (0.25 / 40_000) ** 0.5


def test_fewer_experts_than_k_leave_finite_gradients() -> None:
    clean = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    ranked = clean.masked_fill(torch.tensor([[False, True, True]]), float("-inf"))
    chance = _chance_of_choice(clean, ranked, torch.ones_like(clean), 2)[..., :1]
    assert chance.item() == 1
    chance.sum().backward()
    assert clean.grad is not None
    assert clean.grad.isfinite().all()


def test_balance_loss_covers_free_experts_and_falls_with_equal_load() -> None:
    torch.manual_seed(0)
    fusion = TopKExperts(("a", "b"), 4, free=2, k=1).train()
    features = {name: torch.randn(64, 4) for name in "ab"}
    present = {name: torch.ones(64, dtype=torch.bool) for name in "ab"}
    everywhere = torch.zeros(2 * 4 + 2, 4)
    everywhere[-1] = torch.tensor([-40.0, -40.0, 0.0, 0.0])
    fusion.gate.data = everywhere.clone()
    shared = fusion(features, present).aux_loss
    everywhere[-1] = torch.tensor([-40.0, -40.0, 40.0, 0.0])
    fusion.gate.data = everywhere.clone()
    taken = fusion(features, present).aux_loss
    assert taken > 0.015  # CV^2 of (1, 0) is 1, twice, times the weight of 0.01
    assert shared < 0.002
    everywhere[-1] = torch.tensor([40.0, 0.0, -40.0, -40.0])
    fusion.gate.data = everywhere.clone()
    assert fusion(features, present).aux_loss.isfinite()


def test_sums_of_two_halves_give_the_loss_of_the_batch() -> None:
    torch.manual_seed(0)
    fusion = TopKExperts(("a", "b"), 4, free=3, k=2).train()
    torch.nn.init.normal_(fusion.gate)
    # Without noise both halves choose the experts of the whole batch.
    fusion.noise.data[-2:] = -1e3
    features = {name: torch.randn(40, 4) for name in "ab"}
    present = {"a": torch.arange(40) < 30, "b": torch.arange(40) > 5}
    parts = [
        fusion({n: f[rows] for n, f in features.items()}, {n: m[rows] for n, m in present.items()}).auxiliary
        for rows in (slice(15), slice(15, 40), slice(40))
    ]
    first, second, whole = (part for part in parts if part is not None)
    joined = AuxiliarySums(first.sums + second.sums, first.rows + second.rows, whole.loss)
    assert float(whole.value()) > 0
    torch.testing.assert_close(joined.value(), whole.value())
