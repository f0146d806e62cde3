"""Correspondence, synchrony and offset against loops over clips and segments."""

import math
from collections.abc import Callable, Collection

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.base import unit
from modalgate.ssl.pretext.correspondence import (
    Correspondence,
    Offset,
    PairTask,
    Synchrony,
    corresponding_logits,
)
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


def test_new_tasks_start_at_scale_ten_for_every_pair() -> None:
    task = Correspondence(NAMES, 8)
    assert task.pairs == [("rgb", "flow"), ("rgb", "audio"), ("flow", "audio")]
    assert task.log_scale.exp().tolist() == pytest.approx([10.0] * 3)
    assert task.chance == 0.5


def test_every_other_clip_is_a_negative_in_some_batch() -> None:
    task = Correspondence(("rgb", "audio"), 8, hidden=6, dimension=4)
    batch = encoded(4, 1)
    losses = {
        round(float(task({"plain": batch}, torch.Generator().manual_seed(seed))["loss"].detach()), 6)
        for seed in range(40)
    }
    assert len(losses) == 3


def test_content_of_absent_rows_is_ignored() -> None:
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


Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
ABSENT: dict[str, Absent] = {
    "all there": (),
    "a silent clip": {("audio", 1)},
    "gaps": {("audio", 0), ("rgb", 2), ("audio", 3, 1), ("flow", 4, 0)},
}


def small(kind: type[PairTask], segments: int = 3, **arguments: float) -> PairTask:
    """A task in double precision over two pairs, each with a separate scale and bias."""
    torch.manual_seed(0)
    pairs = [["rgb", "audio"], ["flow", "audio"]]
    if kind is Correspondence:
        task = Correspondence(NAMES, 8, pairs=pairs, hidden=6, dimension=4)
    else:
        task = kind(NAMES, 8, segments, 1.0, pairs=pairs, hidden=6, dimension=4, **arguments)  # pyright: ignore
    torch.nn.init.normal_(task.bias)
    torch.nn.init.normal_(task.log_scale, mean=1.0)
    return task.double()


def distance_head(
    task: PairTask, number: int, batch: Encoded, one: tuple[int, int], other: tuple[int, int]
) -> Tensor:
    """`scale cos(t(v), t'(a)) + bias` of two rows, each a (clip, segment)."""
    first, second = task.pairs[number]
    v, a = task.towers[first](batch.features[first][one]), task.towers[second](batch.features[second][other])
    cosine = (v * a).sum() / ((v * v).sum().sqrt() * (a * a).sum().sqrt())
    return task.log_scale[number].exp() * cosine + task.bias[number]


def binary(positives: list[Tensor], negatives: list[Tensor]) -> Tensor:
    terms = [-torch.log(1 / (1 + torch.exp(-logit))) for logit in positives]
    terms += [-torch.log(1 / (1 + torch.exp(logit))) for logit in negatives]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("case", ABSENT)
def test_correspondence_and_its_gradients_equal_the_loop(case: str, leaves: Leaves, assert_equation: Assert) -> None:
    task, batch = small(Correspondence), leaves(5, 3, NAMES, ABSENT[case])
    outputs = task({"plain": batch}, torch.Generator().manual_seed(3))
    shift = int(torch.randint(1, 5, (), generator=torch.Generator().manual_seed(3)))
    losses = []
    for number, (first, second) in enumerate(task.pairs):
        positives, negatives = [], []
        for b in range(5):
            c = (b + shift) % 5
            for k in range(3):
                here, there = batch.present[first], batch.present[second]
                if here[b, k] and there[b, k] and there[c, k]:
                    positives.append(distance_head(task, number, batch, (b, k), (b, k)))
                    negatives.append(distance_head(task, number, batch, (b, k), (c, k)))
        losses.append(binary(positives, negatives))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"plain": batch})


@pytest.mark.parametrize("hard", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("case", ABSENT)
def test_synchrony_and_its_gradients_equal_the_loop(
    case: str, hard: float, leaves: Leaves, assert_equation: Assert, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, batch = small(Synchrony, hard=hard, easy_until=0.0), leaves(5, 3, NAMES, ABSENT[case])
    # Clip 0's second and third segment overlap: neither may be the other's negative.
    batch.start[0, 2] = batch.start[0, 1] + 0.5
    asked: list[Tensor] = []
    judge = task.judge
    monkeypatch.setattr(
        task, "judge", lambda found, towers: asked.extend(t for _, t in found) or judge(found, towers)
    )
    outputs = task({"plain": batch}, torch.Generator().manual_seed(3))
    draws = torch.Generator().manual_seed(3)
    shift, later = (int(torch.randint(1, count, (), generator=draws)) for count in (5, 3))
    wants_hard = torch.rand(5, 3, generator=draws) < hard
    losses, counts = [], []
    for number, (first, second) in enumerate(task.pairs):
        positives, negatives = [], []
        for b in range(5):
            for k in range(3):
                c, j = (b, (k + later) % 3) if wants_hard[b, k] else ((b + shift) % 5, k)
                near = c == b and abs(float(batch.start[b, k] - batch.start[b, j])) < 1.1
                if near or not (batch.present[first][b, k] and batch.present[second][b, k]):
                    continue
                if batch.present[second][c, j]:
                    positives.append(distance_head(task, number, batch, (b, k), (b, k)))
                    negatives.append(distance_head(task, number, batch, (b, k), (c, j)))
        losses.append(binary(positives, negatives))
        counts.append([1.0] * len(positives) + [0.0] * len(negatives))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"plain": batch})
    assert [targets.tolist() for targets in asked] == counts, "one negative for every positive"


def test_synchrony_rises_from_easy_to_hard() -> None:
    task = Synchrony(NAMES, 8, 3, 1.0, hard=0.8, easy_until=0.25)
    shares = []
    for task.progress in (0.0, 0.25, 0.375, 0.5, 1.0):
        shares.append(task.hard_share())
    assert shares == pytest.approx([0, 0, 0.4, 0.8, 0.8])


@pytest.mark.parametrize("case", ABSENT)
def test_offset_and_its_gradients_equal_the_loop(case: str, leaves: Leaves, assert_equation: Assert) -> None:
    task, batch = small(Offset), leaves(5, 3, NAMES, ABSENT[case])
    batch.start[2] = torch.tensor([0.0, 1.05, 9.0])
    outputs = task({"plain": batch}, torch.Generator())
    losses, hits, classes = [], [], []
    for number, (first, second) in enumerate(task.pairs):
        whole = [b for b in range(5) if b != 2 and bool((batch.present[first][b] & batch.present[second][b]).all())]
        for forth in (True, False):
            terms, right = [], []
            for b in whole:
                for k in range(3):
                    scores = torch.stack(
                        [
                            distance_head(task, number, batch, *((b, k), (b, j))[:: 1 if forth else -1])
                            for j in range(3)
                        ]
                    )
                    terms.append(-(scores[k] - scores.exp().sum().log()))
                    right.append(float(int(scores.argmax()) == k))
                    classes.append(k)
            losses.append(torch.stack(terms).mean())
            hits.append(sum(right) / len(right))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"plain": batch})
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))
    assert task.chance == pytest.approx(1 / 3)
    assert len({classes.count(k) for k in range(3)}) == 1


@pytest.mark.parametrize("kind", [Correspondence, Synchrony, Offset])
def test_batch_without_valid_rows_has_zero_loss_with_gradient(
    kind: type[PairTask], leaves: Leaves, assert_waits: Assert
) -> None:
    task, batch = small(kind), leaves(4, 3, NAMES, {("audio", clip) for clip in range(4)})
    assert_waits(task({"plain": batch}, torch.Generator()), task)


def test_offset_skips_clips_with_close_segments(leaves: Leaves, assert_waits: Assert) -> None:
    task, batch = small(Offset), leaves(4, 3, NAMES)
    # The last segment is far enough from both, but alone it would be the only class.
    batch.start[:] = torch.tensor([0.0, 1.05, 9.0])
    assert_waits(task({"plain": batch}, torch.Generator()), task)
