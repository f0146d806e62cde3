"""Arrow of time and pace against loops over clips."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.direction import ArrowOfTime, Pace
from torch import Tensor

NAMES = ("rgb", "audio")

ABSENT = [[], [("audio", 1)], [("rgb", 0), ("audio", 3), ("audio", 4)]]


@pytest.mark.parametrize("absent", ABSENT)
def test_every_segment_is_judged_forwards_and_backwards(
    absent: list[tuple[str, int]], leaves: Callable[..., Encoded], assert_equation: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    task = ArrowOfTime(("rgb", "audio"), 8).double()
    chosen = torch.tensor([[0], [2], [1], [1], [0]])
    plain, turned = leaves(names=NAMES, absent=absent), leaves(names=NAMES, segments=1, absent=absent, seed=1)
    turned.facts["segments"] = chosen
    outputs = task({"plain": plain, "reverse": turned}, torch.Generator())
    losses, right = [], []
    for name in ("rgb", "audio"):
        head, terms, hits = task.heads[name], [], []
        for clip in range(5):
            if (name, clip) in absent:
                continue
            ahead = torch.sigmoid(head(plain.features[name][clip, int(chosen[clip])]))[0]
            back = torch.sigmoid(head(turned.features[name][clip, 0]))[0]
            terms += [-ahead.log(), -(1 - back).log()]
            hits += [bool(ahead > 0.5), bool(back <= 0.5)]
        assert len(hits) % 2 == 0, "as many of each class"
        losses.append(torch.stack(terms).mean())
        right.append(sum(hits) / len(hits))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"plain": plain, "reverse": turned})
    assert float(outputs["accuracy"]) == pytest.approx(sum(right) / 2)


@pytest.mark.parametrize("absent", [[], [("depth", 1)], [("rgb", 0), ("depth", 3)]])
def test_pace_is_a_softmax_over_two_rates(
    absent: list[tuple[str, int]], leaves: Callable[..., Encoded], assert_equation: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    task = Pace(("rgb", "flow", "depth"), 8).double()
    assert sorted(task.heads) == ["depth", "rgb"]
    rate = torch.tensor([0, 1, 1, 0, 1])
    view = leaves(names=("rgb", "flow", "depth"), segments=1, absent=absent, rate=rate)
    outputs = task({"pace": view}, torch.Generator())
    losses, right = [], []
    for name in ("rgb", "depth"):
        terms, hits = [], []
        for clip in range(5):
            if (name, clip) in absent:
                continue
            logits = task.heads[name](view.features[name][clip, 0])
            terms.append(-(logits[rate[clip]].exp() / logits.exp().sum()).log())
            hits.append(int(logits.argmax()) == int(rate[clip]))
        losses.append(torch.stack(terms).mean())
        right.append(sum(hits) / len(hits))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"pace": view})
    assert float(outputs["accuracy"]) == pytest.approx(sum(right) / 2)


@pytest.mark.parametrize("kind", [ArrowOfTime, Pace])
def test_nothing_present_is_zero_with_gradient(
    kind: type[ArrowOfTime | Pace], leaves: Callable[..., Encoded]
) -> None:
    task = kind(("rgb",), 8).double()
    absent = [("rgb", clip) for clip in range(5)]
    plain = leaves(names=("rgb",), absent=absent)
    facts: dict[str, Tensor] = {"rate": torch.zeros(5, dtype=torch.long)}
    view = leaves(names=("rgb",), segments=1, absent=absent, **facts)
    view.facts["segments"] = torch.zeros(5, 1, dtype=torch.long)
    outputs = task({"plain": plain, "reverse": view, "pace": view}, torch.Generator())
    outputs["loss"].backward()
    assert float(outputs["loss"].detach()) == 0
    assert "accuracy" not in outputs
    assert all(p.grad is not None and not bool(p.grad.any()) for p in task.parameters())
