"""The gates against loops over rows and modalities, in double precision."""

import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from modalgate.fusion.mechanisms.gates import (
    Fused,
    SigmoidGate,
    SoftmaxGate,
    StaticFusion,
    mean_gate_divergence,
)
from torch import Tensor, nn

MODALITIES = ("rgb", "flow", "audio")
WIDTH, ROWS = 5, 4
SUBSETS = [frozenset(s) for n in range(len(MODALITIES) + 1) for s in combinations(MODALITIES, n)]


def randomise(gate: nn.Module) -> nn.Module:
    """Random parameters: at their start gates only compute the mean."""
    generator = torch.Generator().manual_seed(1)
    for parameter in gate.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return gate.double()


def some_features(rows: int = ROWS, seed: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
        for name in MODALITIES
    }


def everywhere(subset: frozenset[str], rows: int = ROWS) -> dict[str, Tensor]:
    return {name: torch.full((rows,), name in subset) for name in MODALITIES}


def mixed() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One row per subset."""
    present = {name: torch.tensor([name in subset for subset in SUBSETS]) for name in MODALITIES}
    return some_features(len(SUBSETS)), present


def naive_softmax(
    gate: SoftmaxGate, features: dict[str, Tensor], present: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    first, last = gate.network[0], gate.network[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    embeddings, every_weight = [], []
    for row in range(len(next(iter(features.values())))):
        there = [bool(present[name][row]) for name in gate.modalities]
        entries = [features[n][row] if there[m] else gate.missing[m] for m, n in enumerate(gate.modalities)]
        inputs = torch.cat([*entries, torch.tensor(there).double()])
        hidden = [torch.clamp(first.weight[h] @ inputs + first.bias[h], min=0) for h in range(len(first.bias))]
        raised = []
        for m in range(len(there)):
            score = last.bias[m]
            for h, value in enumerate(hidden):
                score = score + last.weight[m, h] * value
            raised.append((score / gate.temperature).exp() if there[m] else torch.zeros_like(score))
        total = torch.stack(raised).sum()
        weights = [value / total if there[m] else torch.zeros_like(value) for m, value in enumerate(raised)]
        mixture = torch.zeros(WIDTH, dtype=torch.float64)
        for m, weight in enumerate(weights):
            mixture = mixture + weight * entries[m]
        embeddings.append(mixture if any(there) else gate.nothing)
        every_weight.append(torch.stack(weights))
    return torch.stack(embeddings), torch.stack(every_weight)


def naive_sigmoid(
    gate: SigmoidGate, features: dict[str, Tensor], present: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    embeddings, every_weight = [], []
    for row in range(len(next(iter(features.values())))):
        weights, mixture = [], torch.zeros(WIDTH, dtype=torch.float64)
        for number, name in enumerate(gate.modalities):
            score = gate.bias[number]
            for place in range(WIDTH):
                score = score + gate.weight[number, place] * features[name][row, place]
            weight = 1 / (1 + (-score).exp()) if present[name][row] else torch.zeros((), dtype=torch.float64)
            mixture = mixture + weight * features[name][row]
            weights.append(weight)
        embeddings.append(mixture if any(bool(present[n][row]) for n in gate.modalities) else gate.nothing)
        every_weight.append(torch.stack(weights))
    return torch.stack(embeddings), torch.stack(every_weight)


def gradients(gate: nn.Module, features: dict[str, Tensor], embedding: Tensor, weights: Tensor) -> list[Tensor]:
    """Gradients of one scalar that weights every output differently."""
    generator = torch.Generator().manual_seed(3)
    scalar = (embedding * torch.randn(embedding.shape, generator=generator)).sum()
    scalar = scalar + (weights * torch.randn(weights.shape, generator=generator)).sum()
    inputs = [*features.values(), *gate.parameters()]
    found = torch.autograd.grad(scalar, inputs, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]


def test_softmax_gate_equals_the_loop() -> None:
    for subset in SUBSETS:
        for temperature in (1.0, 0.3):
            gate = randomise(SoftmaxGate(MODALITIES, WIDTH, hidden=6, temperature=temperature))
            assert isinstance(gate, SoftmaxGate)
            features, present = some_features(), everywhere(subset)
            compare(gate, gate(features, present), naive_softmax(gate, features, present), features)


def test_sigmoid_gate_equals_the_loop() -> None:
    for subset in SUBSETS:
        gate = randomise(SigmoidGate(MODALITIES, WIDTH))
        assert isinstance(gate, SigmoidGate)
        features, present = some_features(), everywhere(subset)
        compare(gate, gate(features, present), naive_sigmoid(gate, features, present), features)


def compare(gate: nn.Module, fused: Fused, expected: tuple[Tensor, Tensor], features: dict[str, Tensor]) -> None:
    torch.testing.assert_close(fused.embedding, expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fused.weights, expected[1], rtol=1e-10, atol=1e-12)
    ours, theirs = gradients(gate, features, fused.embedding, fused.weights), gradients(gate, features, *expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_rows_with_different_subsets_do_not_affect_each_other() -> None:
    features, present = mixed()
    for gate, naive in (
        (SoftmaxGate(MODALITIES, WIDTH), naive_softmax),
        (SigmoidGate(MODALITIES, WIDTH), naive_sigmoid),
    ):
        randomise(gate)
        expected = naive(gate, features, present)  # pyright: ignore[reportArgumentType]
        compare(gate, gate(features, present), expected, features)


def test_softmax_weights_sum_to_one_and_absent_ones_are_zero() -> None:
    features, present = mixed()
    weights = randomise(SoftmaxGate(MODALITIES, WIDTH))(features, present).weights
    some = torch.stack(list(present.values())).any(dim=0)
    torch.testing.assert_close(weights.sum(dim=-1), some.double())
    for number, name in enumerate(MODALITIES):
        assert (weights[~present[name], number] == 0).all()
        assert (weights[present[name], number] > 0).all()


def test_sigmoid_weights_are_independent_of_each_other() -> None:
    gate = randomise(SigmoidGate(MODALITIES, WIDTH))
    features, present = some_features(), everywhere(frozenset(MODALITIES))
    before = gate(features, present).weights
    without = gate(features, everywhere(frozenset({"rgb", "audio"}))).weights
    changed = gate(features | {"flow": features["flow"] * -3}, present).weights
    assert isinstance(gate, SigmoidGate)
    own = torch.sigmoid(features["flow"] * -3 @ gate.weight[1] + gate.bias[1])
    for weights, flow in ((without, torch.zeros_like(own)), (changed, own)):
        torch.testing.assert_close(weights[:, [0, 2]], before[:, [0, 2]], rtol=0, atol=0)
        torch.testing.assert_close(weights[:, 1], flow)


def test_softmax_gate_sees_the_other_modalities() -> None:
    gate = randomise(SoftmaxGate(MODALITIES, WIDTH))
    features, present = some_features(), everywhere(frozenset(MODALITIES))
    before = gate(features, present).weights
    after = gate(features | {"flow": features["flow"] * -3}, present).weights
    ratio = before[:, 0] / before[:, 2] - after[:, 0] / after[:, 2]
    assert (ratio.abs() > 1e-6).all()


def permuted(gate: nn.Module, order: list[int]) -> nn.Module:
    """The same gate with its modalities in another order."""
    modalities = tuple(MODALITIES[place] for place in order)
    if isinstance(gate, SigmoidGate):
        other = SigmoidGate(modalities, WIDTH).double()
        state = {k: v if k == "nothing" else v[order] for k, v in gate.state_dict().items()}
    else:
        other = SoftmaxGate(modalities, WIDTH).double()
        columns = [place * WIDTH + column for place in order for column in range(WIDTH)]
        columns += [len(order) * WIDTH + place for place in order]
        state = gate.state_dict()
        state |= {key: state[key][order] for key in ("missing", "network.3.weight", "network.3.bias")}
        state["network.0.weight"] = state["network.0.weight"][:, columns]
    other.load_state_dict(state)
    return other


def test_permuting_modalities_permutes_the_weights() -> None:
    for kind in (SoftmaxGate, SigmoidGate):
        for order in ([1, 0, 2], [2, 0, 1], [2, 1, 0]):
            features, present = mixed()
            gate = randomise(kind(MODALITIES, WIDTH))
            before, after = gate(features, present), permuted(gate, order)(features, present)
            torch.testing.assert_close(after.weights, before.weights[:, order])
            torch.testing.assert_close(after.embedding, before.embedding)
            # The order in which a dict happens to hold them is of no account.
            backwards = gate(dict(reversed(features.items())), dict(reversed(present.items())))
            torch.testing.assert_close(backwards.weights, before.weights, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [SoftmaxGate, SigmoidGate])
def test_row_without_modalities_gives_the_learned_vector_and_finite_gradients(
    kind: type[SoftmaxGate] | type[SigmoidGate],
) -> None:
    gate = randomise(kind(MODALITIES, WIDTH))
    features = some_features()
    present = everywhere(frozenset(MODALITIES))
    for mask in present.values():
        mask[1] = False
    fused = gate(features, present)
    assert torch.equal(fused.embedding[1], gate.nothing)
    assert (fused.weights[1] == 0).all()
    (fused.embedding.square().sum() + fused.weights.square().sum() + fused.aux_loss).backward()
    for tensor in [*features.values(), *gate.parameters()]:
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    torch.testing.assert_close(gate.nothing.grad, 2 * gate.nothing.detach())
    for feature in features.values():
        assert feature.grad is not None
        assert (feature.grad[1] == 0).all()


@pytest.mark.parametrize("kind", [SoftmaxGate, SigmoidGate])
def test_absent_features_are_never_used(kind: type[SoftmaxGate] | type[SigmoidGate]) -> None:
    gate = randomise(kind(MODALITIES, WIDTH))
    features, present = mixed()
    broken = {
        name: torch.where(present[name][:, None], f, torch.full_like(f, torch.nan)).detach().requires_grad_()
        for name, f in features.items()
    }
    clean, dirty = gate(features, present), gate(broken, present)
    assert torch.equal(clean.embedding, dirty.embedding)
    assert torch.equal(clean.weights, dirty.weights)
    dirty.embedding.sum().backward()
    for feature in broken.values():
        assert feature.grad is not None
        assert torch.isfinite(feature.grad).all()


def test_new_gates_start_from_the_mean_and_from_one_half() -> None:
    features, present = some_features(), everywhere(frozenset({"rgb", "audio"}))
    softmax = SoftmaxGate(MODALITIES, WIDTH).double()(features, present)
    mean = (features["rgb"] + features["audio"]) / 2
    torch.testing.assert_close(softmax.embedding, mean)
    sigmoid = SigmoidGate(MODALITIES, WIDTH).double()(features, present)
    torch.testing.assert_close(sigmoid.embedding, mean)
    torch.testing.assert_close(sigmoid.weights, torch.tensor([0.5, 0.0, 0.5]).double().expand(ROWS, 3))


def test_any_leading_shape_works() -> None:
    gate = randomise(SoftmaxGate(MODALITIES, WIDTH))
    features, present = mixed()
    flat = gate(features, present)
    folded = gate(
        {n: f.view(2, 4, WIDTH) for n, f in features.items()}, {n: p.view(2, 4) for n, p in present.items()}
    )
    torch.testing.assert_close(folded.embedding.flatten(0, 1), flat.embedding)
    torch.testing.assert_close(folded.aux_loss, flat.aux_loss)


def test_mean_gate_divergence_closed_form() -> None:
    for mean, expected in (
        ((1 / 3, 1 / 3, 1 / 3), 0.0),
        ((1.0, 0.0, 0.0), math.log(3)),
        ((0.5, 0.5, 0.0), math.log(3) - math.log(2)),
        ((0.5, 0.25, 0.25), math.log(3) - 1.5 * math.log(2)),
    ):
        weights = torch.tensor(mean, dtype=torch.float64).expand(6, 3)
        found = mean_gate_divergence(weights, torch.ones(6, 3, dtype=torch.bool))
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_mean_gate_divergence_does_not_constrain_single_rows() -> None:
    sure = torch.eye(3).double().repeat(2, 1).view(2, 3, 3)
    assert float(mean_gate_divergence(sure, torch.ones(2, 3, 3, dtype=torch.bool))) == pytest.approx(0, abs=1e-12)


def test_mean_gate_divergence_counts_only_whole_rows() -> None:
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]]).double().requires_grad_()
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    assert float(mean_gate_divergence(weights, mask).detach()) == pytest.approx(0, abs=1e-12)
    nowhere = mean_gate_divergence(weights, torch.tensor([[True, False]] * 3))
    nowhere.backward()
    assert float(nowhere.detach()) == 0
    assert weights.grad is not None
    assert (weights.grad == 0).all()


def test_balance_scales_the_loss_and_equalises_mean_weights() -> None:
    features, present = some_features(32), everywhere(frozenset(MODALITIES), 32)
    gate = randomise(SoftmaxGate(MODALITIES, WIDTH, balance=0.5))
    fused = gate(features, present)
    mask = torch.ones(32, 3, dtype=torch.bool)
    before = mean_gate_divergence(fused.weights, mask)
    torch.testing.assert_close(fused.aux_loss, 0.5 * before)
    assert float(before.detach()) > 1e-3
    optimizer = torch.optim.SGD(gate.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        gate(features, present).aux_loss.backward()
        optimizer.step()
    assert float(mean_gate_divergence(gate(features, present).weights, mask).detach()) < float(before.detach()) / 10


def naive_static(fusion: StaticFusion, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    raised = {name: fusion.theta[fusion.modalities.index(name)].exp() for name in row}
    weights = {name: value / sum(raised.values()) for name, value in raised.items()}
    return sum(weights[name] * row[name] for name in row), weights  # pyright: ignore[reportReturnType]


def test_static_fusion_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("static", naive_static)


def test_static_fusion_starts_as_the_mean() -> None:
    features = {name: torch.randn(3, 5) for name in "ab"}
    fused = StaticFusion(("a", "b"), 5)(features, {name: torch.ones(3, dtype=torch.bool) for name in "ab"})
    torch.testing.assert_close(fused.embedding, (features["a"] + features["b"]) / 2)
