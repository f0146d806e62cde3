"""Swapped assignments against the published algorithm, written as loops."""

from collections.abc import Callable, Collection

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.clustering import SwappedAssignments
from torch import Tensor

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
NAMES, CLUSTERS = ("rgb", "flow", "audio"), 5
ABSENT: dict[str, Absent] = {"all there": (), "gaps": {("audio", 0), ("rgb", 2, 1), ("flow", 3)}}
PAIRS = [["rgb", "audio"], ["fused", "flow"]]


def small(**arguments: float) -> SwappedAssignments:
    torch.manual_seed(0)
    return SwappedAssignments(NAMES, 8, PAIRS, CLUSTERS, hidden=6, dimension=4, **arguments).double()  # pyright: ignore


def spread(scores: list[list[float]], epsilon: float) -> list[list[float]]:
    """Codes of N rows over K clusters: three rounds of clusters to 1/K each, then rows to 1/N each."""
    rows, clusters = len(scores), len(scores[0])
    codes = [[float(torch.tensor(s / epsilon, dtype=torch.float64).exp()) for s in row] for row in scores]
    for _ in range(3):
        for k in range(clusters):
            share = sum(row[k] for row in codes)
            for row in codes:
                row[k] /= share * clusters
        for row in codes:
            share = sum(row)
            row[:] = [q / share / rows for q in row]
    return [[q * rows for q in row] for row in codes]


@pytest.mark.parametrize("absent", ABSENT)
def test_loss_and_gradients_equal_the_loop(absent: str, leaves: Leaves, assert_equation: Assert) -> None:
    task, batch = small(), leaves(6, 2, NAMES, ABSENT[absent])
    outputs = task({"plain": batch}, torch.Generator())
    prototypes = [c / c.square().sum().sqrt() for c in task.prototypes.weight]

    def scores(name: str, b: int, k: int) -> Tensor:
        z = task.heads[name]((batch.embedding if name == "fused" else batch.features[name])[b, k])
        z = z / z.square().sum().sqrt()
        return torch.stack([(z * c).sum() for c in prototypes])

    losses, hits = [], []
    for first, second in PAIRS:
        rows = [
            (b, k)
            for b in range(6)
            for k in range(2)
            if all(name == "fused" or bool(batch.present[name][b, k]) for name in (first, second))
        ]
        for query, key in ((first, second), (second, first)):
            codes = spread([scores(key, *row).tolist() for row in rows], 0.05)
            terms, right = [], []
            for row, code in zip(rows, codes, strict=True):
                logits = scores(query, *row) / 0.1
                likely = logits - logits.exp().sum().log()
                terms.append(-sum(q * p for q, p in zip(code, likely, strict=True)))
                right.append(float(int(logits.argmax()) == code.index(max(code))))
            losses.append(torch.stack(terms).mean())
            hits.append(sum(right) / len(right))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"plain": batch})
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))
    assert task.chance == 1 / CLUSTERS


def test_batch_without_valid_rows_has_zero_loss_with_gradient(leaves: Leaves, assert_waits: Assert) -> None:
    torch.manual_seed(0)
    task = SwappedAssignments(NAMES, 8, [["rgb", "audio"]], CLUSTERS, hidden=6, dimension=4).double()
    assert_waits(task({"plain": leaves(3, 2, NAMES, {("audio", b) for b in range(3)})}, torch.Generator()), task)
