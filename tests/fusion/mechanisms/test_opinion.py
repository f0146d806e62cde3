"""The gated product of opinions against a loop, its start, and what it gains where an expert is wrong and sure."""

import math
from collections.abc import Callable

import torch
from modalgate.fusion.mechanisms.opinion import OpinionPool
from modalgate.fusion.mechanisms_by_name import build_fusion
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

NAMES = ("rgb", "flow", "audio")


def naive_pool(fusion: OpinionPool, row: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    chances = {name: [value.exp() / logits.exp().sum() for value in logits] for name, logits in row.items()}
    zero = torch.zeros((), dtype=torch.float64)
    signs = []
    for name in fusion.modalities:
        if name not in row:
            signs += [zero, zero, zero]
            continue
        own, others = chances[name], [chance for other, chance in chances.items() if other != name]
        agreement = zero
        for k, chance in enumerate(own):
            agreement = agreement + sum(chance * other[k] for other in others) / max(len(others), 1)
        signs += [-sum(c * c.log() for c in own) / math.log(len(own)), torch.stack(own).amax(), agreement]
    signs += [zero + float(name in row) for name in fusion.modalities]
    first, last = fusion.network[0], fusion.network[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    gates = last.weight @ torch.relu(first.weight @ torch.stack(signs) + first.bias) + last.bias
    weights = {name: 2 / (1 + (-gate).exp()) for name, gate in zip(fusion.modalities, gates, strict=True)}
    weights = {name: weights[name] for name in row}
    scores = [
        torch.stack([chances[name][k] ** weights[name] for name in row]).prod()
        for k in range(len(next(iter(row.values()))))
    ]
    return (torch.stack(scores) / torch.stack(scores).sum()).log(), weights


def test_it_equals_the_loop(equals_the_loop: Callable) -> None:
    equals_the_loop("opinion", naive_pool)


def test_it_starts_from_the_product() -> None:
    torch.manual_seed(0)
    logits = {name: torch.randn(20, 5) for name in NAMES}
    present = {name: torch.rand(20) < 0.7 for name in NAMES}
    present["rgb"][:] = True
    pool, product = (build_fusion(name, NAMES, 5, {})(logits, present) for name in ("opinion", "product"))
    torch.testing.assert_close(pool.embedding, product.embedding)
    torch.testing.assert_close(pool.weights, product.weights)


def test_learns_to_mute_the_disagreeing_expert() -> None:
    """One expert at a time predicts a random class with full confidence: only disagreement reveals it."""
    torch.manual_seed(0)

    def draw(rows: int) -> tuple[dict[str, Tensor], Tensor]:
        label = torch.randint(5, (rows,))
        wrong = torch.randint(3, (rows,))
        logits = {}
        for m, name in enumerate(NAMES):
            claimed = torch.where(wrong == m, torch.randint(5, (rows,)), label)
            # A right expert is half as sure as a wrong one, so that the product follows the wrong one.
            logits[name] = torch.randn(rows, 5) * 0.3
            logits[name][torch.arange(rows), claimed] += torch.where(wrong == m, 6.0, 2.5)
        return logits, label

    everyone = {name: torch.ones(4000, dtype=torch.bool) for name in NAMES}
    pool, product = build_fusion("opinion", NAMES, 5, {}), build_fusion("product", NAMES, 5, {})
    optimizer = torch.optim.Adam(pool.parameters(), 0.02)
    for _ in range(150):
        logits, label = draw(256)
        loss = cross_entropy(pool(logits, {n: mask[:256] for n, mask in everyone.items()}).embedding, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits, label = draw(4000)
    right = [
        float((fusion(logits, everyone).embedding.argmax(-1) == label).float().mean()) for fusion in (pool, product)
    ]
    assert right[0] > 0.97
    assert right[1] < 0.9
