"""Swapped assignments against Sinkhorn's iteration and the cross-entropy, written as loops."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.clustering import SwappedAssignments
from modalgate.ssl.pretext import unit
from torch import Tensor

NAMES = ("rgb", "audio")


def naive_codes(scores: Tensor, epsilon: float) -> Tensor:
    """Sinkhorn and Knopp: rows are samples, every cluster takes the same share of the batch. (N, C)"""
    codes = (scores / epsilon).exp()
    codes = codes / codes.sum()
    count, clusters = codes.shape
    for _ in range(3):
        for cluster in range(clusters):
            codes[:, cluster] /= codes[:, cluster].sum() * clusters
        for row in range(count):
            codes[row] /= codes[row].sum() * count
    return codes * count


@pytest.mark.parametrize("absent", [[], [("audio", 1)], [("rgb", 0), ("audio", 3)]])
def test_each_predicts_the_others_code(absent: list[tuple[str, int]], leaves: Callable[..., Encoded]) -> None:
    torch.manual_seed(0)
    task = SwappedAssignments(("rgb", "audio"), 8, prototypes=4, hidden=6, dimension=5).double()
    plain = leaves(names=NAMES, clips=6, absent=absent)
    outputs = task({"plain": plain}, torch.Generator())
    places = [
        (clip, segment)
        for clip in range(6)
        if ("rgb", clip) not in absent and ("audio", clip) not in absent
        for segment in range(3)
    ]
    scores = {}
    for name in ("rgb", "audio"):
        rows = [unit(task.heads[name](plain.features[name][place])) for place in places]
        scores[name] = torch.stack(rows) @ unit(task.prototypes.weight).T
    terms, hits = [], []
    for query, key in (("rgb", "audio"), ("audio", "rgb")):
        codes = naive_codes(scores[key].detach().clone(), 0.05)
        for row in range(len(places)):
            chances = (scores[query][row] / 0.1).softmax(-1)
            terms.append(-sum(codes[row, c] * chances[c].log() for c in range(4)))
            hits.append(int(chances.argmax()) == int(codes[row].argmax()))
    # The codes come in single precision.
    expected = torch.stack(terms).mean()  # pyright: ignore
    torch.testing.assert_close(outputs["loss"], expected, rtol=1e-5, atol=1e-6)
    inputs = [*plain.features.values()]
    mine, theirs = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (outputs["loss"], expected))
    for one, other in zip(mine, theirs, strict=True):
        assert bool(other.any())
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))


def test_no_common_row_is_zero_with_gradient(leaves: Callable[..., Encoded]) -> None:
    task = SwappedAssignments(("rgb", "audio"), 8, prototypes=4, hidden=6, dimension=5).double()
    plain = leaves(names=NAMES, absent=[("audio", clip) for clip in range(5)])
    outputs = task({"plain": plain}, torch.Generator())
    outputs["loss"].backward()
    assert float(outputs["loss"].detach()) == 0
    assert all(p.grad is not None and not bool(p.grad.any()) for p in task.heads.parameters())
