"""Arrow of time and pace against loops over clips."""

from collections.abc import Callable, Collection

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.direction import ArrowOfTime, Pace
from torch import Tensor

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
NAMES = ("rgb", "flow", "audio")
ABSENT: dict[str, Absent] = {"all there": (), "gaps": {("audio", 0), ("rgb", 3), ("audio", 4, 1), ("rgb", 5)}}


def two_views(leaves: Leaves, view: str, absent: Absent, clips: int = 8) -> dict[str, Encoded]:
    """The plain clips, and one segment of each in another view: the second of every odd clip."""
    plain, altered = leaves(clips, 3, NAMES, absent), leaves(clips, 1, NAMES, seed=1)
    taken = torch.arange(clips) % 2
    altered.present = {name: plain.present[name][torch.arange(clips), taken][:, None] for name in NAMES}
    altered.facts |= {"segments": taken[:, None], "rate": torch.tensor([0, 1, 1, 0, 1, 0, 1, 0][:clips])}
    if view == "pace":
        return {"plain": plain, view: altered}
    # With flow, the task compares the view `forward` instead of the plain clips.
    other = leaves(clips, 3, NAMES, absent, seed=2)
    return {"plain": other, "forward": plain, view: altered}


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize("streams", [None, ["fused", "audio"]])
def test_arrow_of_time_and_its_gradients_equal_the_loop(
    streams: list[str] | None, absent: str, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = ArrowOfTime(NAMES, 8, streams).double()
    views = two_views(leaves, "reverse", ABSENT[absent])
    plain, turned = views["forward"], views["reverse"]
    outputs = task(views, torch.Generator())
    losses, hits = [], []
    for name in streams or NAMES:
        ahead, back = (view.embedding if name == "fused" else view.features[name] for view in (plain, turned))
        terms, right = [], []
        for b in range(8):
            if name != "fused" and not turned.present[name][b, 0]:
                continue
            forwards = task.heads[name](ahead[b, b % 2])[0]
            backwards = task.heads[name](back[b, 0])[0]
            terms += [torch.log(1 + torch.exp(-forwards)), torch.log(1 + torch.exp(backwards))]
            right += [float(forwards > 0), float(backwards <= 0)]
        losses.append(torch.stack(terms).mean())
        hits.append(sum(right) / len(right))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, views)
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize("bias", [30.0, -30.0])
@pytest.mark.parametrize("absent", ABSENT)
def test_constant_prediction_has_accuracy_one_half(absent: str, bias: float, leaves: Leaves) -> None:
    views = two_views(leaves, "reverse", ABSENT[absent])
    views["pace"] = two_views(leaves, "pace", ABSENT[absent])["pace"]
    for task in (ArrowOfTime(NAMES, 8).double(), Pace(NAMES, 8).double()):
        for head in task.heads.values():
            torch.nn.init.constant_(head.bias[:1], bias)  # pyright: ignore
        assert float(task(views, torch.Generator())["accuracy"]) == 0.5


@pytest.mark.parametrize("absent", ABSENT)
def test_pace_and_its_gradients_equal_the_loop(absent: str, leaves: Leaves, assert_equation: Assert) -> None:
    torch.manual_seed(0)
    task = Pace(NAMES, 8, ["rgb", "flow"]).double()
    views = two_views(leaves, "pace", ABSENT[absent])
    view = views["pace"]
    outputs = task(views, torch.Generator())
    losses, hits = [], []
    for name in ("rgb", "flow"):
        kept = [b for b in range(8) if bool(view.present[name][b, 0])]
        # Two clips without RGB leave more of one pace: the surplus waits.
        paces = [[b for b in kept if int(view.facts["rate"][b]) == pace] for pace in (0, 1)]
        kept = sorted(b for clips in paces for b in clips[: min(map(len, paces))])
        terms, right = [], []
        for b in kept:
            logits, pace = task.heads[name](view.features[name][b, 0]), int(view.facts["rate"][b])
            terms.append(-(logits[pace] - logits.exp().sum().log()))
            right.append(float(int(logits.argmax()) == pace))
        losses.append(torch.stack(terms).mean())
        hits.append(sum(right) / len(right))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, views)
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / 2)


def test_pace_uses_only_video(leaves: Leaves) -> None:
    assert set(Pace(NAMES, 8).heads) == {"rgb"}, "sound keeps its pace, and flow's vectors do not know it"
    assert set(Pace(("flow", "audio"), 8).heads) == {"flow"}


@pytest.mark.parametrize("view", ["reverse", "pace"])
def test_without_video_the_loss_is_zero_with_gradient(view: str, leaves: Leaves, assert_waits: Assert) -> None:
    views = two_views(leaves, view, {(name, b) for name in NAMES for b in range(4)}, clips=4)
    task = (ArrowOfTime if view == "reverse" else Pace)(NAMES, 8).double()
    assert_waits(task(views, torch.Generator()), task)


def test_single_pace_has_zero_loss_with_gradient(leaves: Leaves, assert_waits: Assert) -> None:
    views = two_views(leaves, "pace", (), clips=4)
    views["pace"].facts["rate"] = torch.ones(4, dtype=torch.long)
    task = Pace(NAMES, 8).double()
    outputs: dict[str, Tensor] = task(views, torch.Generator())
    assert_waits(outputs, task)
