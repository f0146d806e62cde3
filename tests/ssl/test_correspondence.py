"""Correspondence against a loop over clips and segments."""

import math
from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.correspondence import Correspondence, Offset, Synchrony, corresponding_logits
from modalgate.ssl.pretext import unit
from torch import Tensor

NAMES = ("rgb", "flow", "audio")


def encoded(clips: int, segments: int, absent: set[tuple[str, int]] = frozenset(), seed: int = 0) -> Encoded:  # pyright: ignore
    generator = torch.Generator().manual_seed(seed)
    features, present = {}, {}
    for name in NAMES:
        present[name] = torch.tensor([[(name, clip) not in absent] * segments for clip in range(clips)])
        features[name] = torch.randn(clips, segments, 8, generator=generator) * present[name][..., None]
    fused = torch.stack(list(features.values())).mean(dim=0)
    return Encoded(NAMES, features, present, fused, torch.zeros(clips, segments, 3), torch.zeros(()), torch.zeros(1))


def naive_pairs(
    first: Tensor, second: Tensor, here: Tensor, there: Tensor, shift: int
) -> tuple[list[Tensor], list[Tensor]]:
    clips, segments, _ = first.shape
    positives, negatives = [], []
    for clip in range(clips):
        other = (clip + shift) % clips
        for segment in range(segments):
            if here[clip, segment] and there[clip, segment] and there[other, segment]:
                positives.append(torch.dot(first[clip, segment], second[clip, segment]))
                negatives.append(torch.dot(first[clip, segment], second[other, segment]))
    return positives, negatives


@pytest.mark.parametrize("shift", [1, 2, 4])
@pytest.mark.parametrize("absent", [set(), {("audio", 1)}, {("audio", 0), ("rgb", 2)}])
def test_pairs_equal_the_loop_and_are_balanced_exactly(shift: int, absent: set[tuple[str, int]]) -> None:
    batch = encoded(5, 3, absent)
    first, second = unit(batch.features["rgb"]), unit(batch.features["audio"])
    here, there = batch.present["rgb"], batch.present["audio"]
    cosines, targets = corresponding_logits(first, second, here, there, shift)
    positives, negatives = naive_pairs(first, second, here, there, shift)
    assert positives
    torch.testing.assert_close(cosines, torch.stack(positives + negatives))
    assert targets.tolist() == [1.0] * len(positives) + [0.0] * len(negatives)
    assert float(targets.mean()) == 0.5


def test_a_negative_is_the_same_segment_number_of_another_clip() -> None:
    # Orthogonal codes: clip number and segment number can be read off every cosine.
    clips, segments = 4, 3
    codes = torch.eye(clips * segments).view(clips, segments, -1)
    everywhere = torch.ones(clips, segments, dtype=torch.bool)
    for shift in range(1, clips):
        marked = codes.roll(shift, 0)
        cosines, targets = corresponding_logits(codes, marked, everywhere, everywhere, shift)
        assert (cosines[targets == 0] == 1).all(), "each row meets exactly the row `shift` clips on"
        assert (cosines[targets == 1] == 0).all()


def test_loss_and_accuracy_equal_the_equations() -> None:
    torch.manual_seed(0)
    task = Correspondence(NAMES, 8, pairs=[["rgb", "audio"], ["flow", "audio"]], hidden=6, dimension=4)
    torch.nn.init.normal_(task.bias)
    batch = encoded(4, 2, {("audio", 2)})
    outputs = task({"plain": batch}, torch.Generator().manual_seed(3))
    shift = int(torch.randint(1, 4, (), generator=torch.Generator().manual_seed(3)))
    losses, shares = [], []
    for number, (a, b) in enumerate(task.pairs):
        towers = [unit(task.towers[name](batch.features[name])) for name in (a, b)]
        positives, negatives = naive_pairs(*towers, batch.present[a], batch.present[b], shift)  # pyright: ignore
        scale, bias = task.log_scale[number].exp(), task.bias[number]
        terms = [-torch.log(1 / (1 + torch.exp(-(scale * c + bias)))) for c in positives]
        terms += [-torch.log(1 - 1 / (1 + torch.exp(-(scale * c + bias)))) for c in negatives]
        losses.append(torch.stack(terms).mean())
        right = [bool(scale * c + bias > 0) for c in positives] + [bool(scale * c + bias <= 0) for c in negatives]
        shares.append(sum(right) / len(right))
    torch.testing.assert_close(outputs["loss"], torch.stack(losses).mean())
    assert float(outputs["accuracy"]) == pytest.approx(sum(shares) / 2)


def test_new_tasks_start_at_scale_ten_and_ask_every_pair() -> None:
    task = Correspondence(NAMES, 8)
    assert task.pairs == [("rgb", "flow"), ("rgb", "audio"), ("flow", "audio")]
    assert task.log_scale.exp().tolist() == pytest.approx([10.0] * 3)
    assert task.chance == 0.5


def test_every_other_clip_serves_as_negative_in_some_batch() -> None:
    task = Correspondence(("rgb", "audio"), 8, hidden=6, dimension=4)
    batch = encoded(4, 1)
    losses = {
        round(float(task({"plain": batch}, torch.Generator().manual_seed(seed))["loss"].detach()), 6)
        for seed in range(40)
    }
    assert len(losses) == 3


def test_what_an_absent_row_holds_changes_nothing() -> None:
    task = Correspondence(("rgb", "audio"), 8, hidden=6, dimension=4)
    batch = encoded(4, 2, {("audio", 1)})
    before = task({"plain": batch}, torch.Generator().manual_seed(0))["loss"]
    batch.features["audio"][1] = 50.0
    after = task({"plain": batch}, torch.Generator().manual_seed(0))["loss"]
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(
    ("clips", "absent"),
    [(1, set()), (3, {("audio", 0), ("audio", 1), ("audio", 2)}), (2, {("audio", 1)})],
    ids=["one clip", "no audio", "no partner"],
)
def test_without_a_negative_the_loss_is_zero_with_gradient(clips: int, absent: set[tuple[str, int]]) -> None:
    task = Correspondence(("rgb", "audio"), 8, hidden=6, dimension=4)
    outputs = task({"plain": encoded(clips, 2, absent)}, torch.Generator())
    assert "accuracy" not in outputs
    outputs["loss"].backward()
    assert float(outputs["loss"].detach()) == 0
    for parameter in task.parameters():
        assert parameter.grad is not None
        assert (parameter.grad == 0).all()


def test_a_planted_correspondence_is_learned() -> None:
    torch.manual_seed(0)
    task = Correspondence(("rgb", "audio"), 8, hidden=32, dimension=16)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    accuracies = []
    for step in range(150):
        batch = encoded(16, 1, seed=step)
        batch.features["audio"] = torch.tanh(batch.features["rgb"] @ turn)
        optimizer.zero_grad()
        outputs = task({"plain": batch}, torch.Generator().manual_seed(step))
        outputs["loss"].backward()
        optimizer.step()
        accuracies.append(float(outputs["accuracy"]))
    assert math.fsum(accuracies[-20:]) / 20 > 0.85, "chance is one half"


@pytest.mark.parametrize("absent", [[], [("audio", 1)], [("rgb", 0), ("audio", 3)]])
@pytest.mark.parametrize(("progress", "share"), [(0.2, 0.0), (0.375, 0.5), (0.9, 1.0)])
def test_synchrony_mixes_shifted_and_strange_negatives(
    progress: float,
    share: float,
    absent: list[tuple[str, int]],
    draw_encoded: Callable[..., Encoded],
    same_loss: Callable[..., None],
) -> None:
    torch.manual_seed(0)
    task = Synchrony(("rgb", "audio"), 8, 3, 0.9, hard=1.0, easy_until=0.25, hidden=6, dimension=4).double()
    task.progress = progress
    assert task.hard_share() == pytest.approx(share)
    plain = draw_encoded(absent=absent)
    # Segments 0 and 1 of the last clip nearly touch: neither may stand in for the other.
    plain.start = plain.start.clone()
    plain.start[4, 1] = 0.8
    outputs = task({"plain": plain}, torch.Generator().manual_seed(3))
    draws = torch.Generator().manual_seed(3)
    shift = int(torch.randint(1, 5, (), generator=draws))
    later = int(torch.randint(1, 3, (), generator=draws))
    wanted = torch.rand(5, 3, generator=draws) < share
    rgb, audio = (unit(task.towers[name](plain.features[name])) for name in ("rgb", "audio"))
    positives, negatives = [], []
    for clip in range(5):
        for segment in range(3):
            other_clip, other = (clip + shift) % 5, (segment + later) % 3
            if ("rgb", clip) in absent or ("audio", clip) in absent:
                continue
            if wanted[clip, segment]:
                if abs(float(plain.start[clip, segment] - plain.start[clip, other])) < 0.9 + 0.1 - 1e-6:
                    continue
                negative = audio[clip, other]
            elif ("audio", other_clip) in absent:
                continue
            else:
                negative = audio[other_clip, segment]
            positives.append(rgb[clip, segment] @ audio[clip, segment])
            negatives.append(rgb[clip, segment] @ negative)
    chances = [torch.sigmoid(task.log_scale[0].exp() * c + task.bias[0]) for c in positives + negatives]
    right = [*chances[: len(positives)], *(1 - chance for chance in chances[len(positives) :])]
    assert len(positives) == len(negatives) > 0
    expected = -torch.stack(right).log().mean()
    same_loss(outputs["loss"], expected, [*plain.features.values(), *task.parameters()])
    assert float(outputs["accuracy"]) == pytest.approx(float((torch.stack(right) > 0.5).double().mean()))


@pytest.mark.parametrize("absent", [[], [("audio", 1)], [("rgb", 0), ("audio", 3)]])
def test_offset_is_a_softmax_over_the_clips_own_segments(
    absent: list[tuple[str, int]], draw_encoded: Callable[..., Encoded], same_loss: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    task = Offset(("rgb", "audio"), 8, 3, 0.9, hidden=6, dimension=4).double()
    assert task.chance == pytest.approx(1 / 3)
    plain = draw_encoded(absent=absent)
    plain.start = plain.start.clone()
    plain.start[4, 1] = 0.8
    outputs = task({"plain": plain}, torch.Generator())
    towers = {name: unit(task.towers[name](plain.features[name])) for name in ("rgb", "audio")}
    losses, accuracies = [], []
    for query, bank in (("rgb", "audio"), ("audio", "rgb")):
        terms, hits = [], []
        for clip in range(5):
            if ("rgb", clip) in absent or ("audio", clip) in absent:
                continue
            for segment in range(3):
                gaps = [
                    abs(float(plain.start[clip, segment] - plain.start[clip, k])) for k in range(3) if k != segment
                ]
                if min(gaps) < 1.0 - 1e-6:
                    continue
                scores = torch.stack(
                    [
                        task.log_scale[0].exp() * (towers[query][clip, segment] @ towers[bank][clip, k])
                        + task.bias[0]
                        for k in range(3)
                    ]
                )
                terms.append(-(scores[segment].exp() / scores.exp().sum()).log())
                hits.append(int(scores.argmax()) == segment)
        losses.append(torch.stack(terms).mean())
        accuracies.append(sum(hits) / len(hits))
    same_loss(outputs["loss"], torch.stack(losses).mean(), [*plain.features.values(), *task.parameters()])
    assert float(outputs["accuracy"]) == pytest.approx(sum(accuracies) / 2)
