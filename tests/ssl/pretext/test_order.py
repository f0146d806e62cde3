"""Order tasks: the meaning of classes, the equations of the papers, and learnability."""

from collections.abc import Callable
from itertools import combinations, permutations

import pytest
import torch
from modalgate.fusion.backbone import Backbone, Encoded
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.transforms import Preparation
from modalgate.ssl.pretext.order import (
    ClipOrder,
    FrameOrder,
    OddOneOut,
    OrderTask,
    OrderVerification,
    shuffle_segments,
)
from modalgate.ssl.views.views import deal_evenly
from torch import Tensor, nn

WIDTH = 8


def encoded(feature: Tensor, present: Tensor | None = None) -> Encoded:
    mask = torch.ones(feature.shape[:2], dtype=torch.bool) if present is None else present
    weights, start = torch.ones(*feature.shape[:2], 1), torch.zeros(feature.shape[:2])
    return Encoded(("rgb",), {"rgb": feature}, {"rgb": mask}, feature, weights, torch.zeros(()), start)


def noise(clips: int, segments: int, seed: int = 0) -> Tensor:
    return torch.randn(clips, segments, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("segments", [2, 3, 4])
def test_class_numbers_name_the_applied_permutation(segments: int) -> None:
    task = ClipOrder(("rgb",), WIDTH, segments)
    labels = list(range(segments))
    for number, order in enumerate(permutations(labels)):
        marked = torch.arange(segments).float().view(1, segments, 1).expand(1, segments, WIDTH)
        shuffled = shuffle_segments(marked, task.orders[[number]])
        assert shuffled[0, :, 0].tolist() == [labels[place] for place in order]
    assert len(task.orders) == len(list(permutations(labels)))
    assert task.chance == pytest.approx(1 / len(task.orders))


def test_logits_equal_the_published_form() -> None:
    torch.manual_seed(0)
    task = ClipOrder(("rgb",), WIDTH, 3, hidden=5).eval()
    feature = noise(4, 3)
    logits = task.predict("fused", feature)
    relation, last = task.relations["fused"], task.classifiers["fused"][1]  # pyright: ignore
    assert isinstance(relation, nn.Linear)
    for row in range(4):
        related = []
        for i, j in ((0, 1), (0, 2), (1, 2)):
            pair = torch.cat([feature[row, i], feature[row, j]])
            related.append(torch.clamp(relation.weight @ pair + relation.bias, min=0))
        torch.testing.assert_close(logits[row], last.weight @ torch.cat(related) + last.bias)


@pytest.mark.parametrize(("count", "classes"), [(12, 6), (8, 6), (3, 6), (7, 2), (0, 6)])
def test_classes_are_equally_frequent_in_random_order(count: int, classes: int) -> None:
    seen = torch.zeros(classes)
    orders = set()
    for seed in range(200):
        dealt = deal_evenly(count, classes, torch.Generator().manual_seed(seed))
        counts = torch.bincount(dealt, minlength=classes)
        assert int(counts.sum()) == count
        assert int(counts.max() - counts.min()) <= 1
        seen += counts
        orders.add(tuple(dealt.tolist()))
    if count:
        assert float((seen / seen.sum() - 1 / classes).abs().max()) < 0.05, "no class is rare over many batches"
        assert len(orders) > 5


def test_loss_and_accuracy_score_the_drawn_permutations() -> None:
    torch.manual_seed(0)
    task = ClipOrder(("rgb",), WIDTH, 3, hidden=5).eval()
    feature = noise(12, 3)
    outputs = task({"plain": encoded(feature)}, torch.Generator().manual_seed(4))
    target = deal_evenly(12, 6, torch.Generator().manual_seed(4))
    shuffled = torch.stack([feature[row][task.orders[number]] for row, number in enumerate(target)])
    logits = task.predict("fused", shuffled)
    expected = -logits.log_softmax(-1)[torch.arange(12), target].mean()
    torch.testing.assert_close(outputs["loss"], expected)
    assert float(outputs["accuracy"]) == pytest.approx(float((logits.argmax(-1) == target).float().mean()))


def test_clips_with_an_absent_segment_do_not_count() -> None:
    torch.manual_seed(0)
    task = ClipOrder(("rgb",), WIDTH, 3, hidden=5).eval()
    feature = noise(9, 3)
    present = torch.ones(9, 3, dtype=torch.bool)
    present[[1, 4], [0, 2]] = False
    present[7] = False
    whole = [0, 2, 3, 5, 6, 8]
    found = task({"plain": encoded(feature, present)}, torch.Generator().manual_seed(1))
    alone = task({"plain": encoded(feature[whole])}, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found["loss"], alone["loss"])
    assert torch.equal(found["accuracy"], alone["accuracy"])


def test_without_complete_clips_the_loss_is_zero_with_gradient() -> None:
    task = ClipOrder(("rgb",), WIDTH, 3)
    outputs = task({"plain": encoded(noise(4, 3), torch.zeros(4, 3, dtype=torch.bool))}, torch.Generator())
    assert "accuracy" not in outputs
    outputs["loss"].backward()
    assert float(outputs["loss"].detach()) == 0
    for parameter in task.parameters():
        assert parameter.grad is not None
        assert (parameter.grad == 0).all()


@torch.no_grad()
def test_shuffling_features_equals_shuffling_the_input(
    tiny_backbone: Callable[..., Backbone], tiny_batch: Callable[..., Batch], tiny_clip: ClipSpec
) -> None:
    backbone = tiny_backbone().eval()
    batch = tiny_batch(segments=3)
    streams = Preparation(tiny_clip)(batch)
    embedding = backbone(streams, batch.present, batch.start).embedding
    for order in permutations(range(3)):
        moved = {name: stream[:, list(order)] for name, stream in streams.items()}
        orders = torch.tensor(order).expand(4, 3)
        torch.testing.assert_close(
            shuffle_segments(embedding, orders), backbone(moved, batch.present, batch.start).embedding
        )


def trained_accuracy(make: Callable[[int], Tensor]) -> float:
    """Mean accuracy on 20 unseen batches after 150 steps."""
    torch.manual_seed(0)
    task = ClipOrder(("rgb",), WIDTH, 3, hidden=32)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    for step in range(150):
        optimizer.zero_grad()
        outputs = task({"plain": encoded(make(step))}, torch.Generator().manual_seed(step))
        outputs["loss"].backward()
        optimizer.step()
    task.eval()
    with torch.no_grad():
        scores = [
            task({"plain": encoded(make(9000 + n))}, torch.Generator().manual_seed(n))["accuracy"] for n in range(20)
        ]
    return float(torch.stack(scores).mean())


def test_a_planted_order_is_learned() -> None:
    drift = torch.linspace(-1, 1, 3).view(1, 3, 1) * torch.ones(WIDTH)
    assert trained_accuracy(lambda seed: noise(36, 3, seed) + drift) > 1 / 6 + 0.15


def test_identical_segments_stay_at_chance() -> None:
    accuracy = trained_accuracy(lambda seed: noise(36, 1, seed).expand(36, 3, WIDTH))
    # 20 batches of 36 clips: four standard errors.
    assert abs(accuracy - 1 / 6) < 4 * (5 / 36 / 720) ** 0.5


def test_too_few_segments_are_rejected() -> None:
    with pytest.raises(RequestError, match=r"data\.segments of at least 2, not 1"):
        ClipOrder(("rgb",), WIDTH, 1)
    with pytest.raises(RequestError, match="'adio': did you mean 'audio'"):
        ClipOrder(("rgb", "audio"), WIDTH, 3, streams=["adio"])


Leaves, Assert = Callable[..., Encoded], Callable[..., None]
STREAMS = ("fused", "audio")
KINDS: dict[str, tuple[type[OrderTask], int]] = {
    "three clips": (ClipOrder, 3),
    "four clips": (ClipOrder, 4),
    "verification": (OrderVerification, 3),
    "verification of four": (OrderVerification, 4),
    "frames": (FrameOrder, 3),
    "published frames": (FrameOrder, 4),
    "odd one out": (OddOneOut, 4),
    "odd one of five": (OddOneOut, 5),
}
ABSENT = {"all there": set(), "gaps": {("audio", 1), ("audio", 3, 2), ("rgb", 1), ("flow", 1)}}


def small(kind: type[OrderTask], segments: int) -> OrderTask:
    torch.manual_seed(0)
    return kind(("rgb", "flow", "audio"), 8, segments, streams=STREAMS, hidden=5, dropout=0.0).double()  # pyright: ignore


def watched(task: OrderTask, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Tensor]]:
    """The sequences that a task predicts for each stream, in order."""
    seen: dict[str, list[Tensor]] = {name: [] for name in STREAMS}
    predict = task.predict
    monkeypatch.setattr(
        task, "predict", lambda name, shuffled: seen[name].append(shuffled) or predict(name, shuffled)
    )
    return seen


def applied(shuffled: Tensor, clip: Tensor) -> tuple[int, ...]:
    """Which segment of the clip each row (L, D) of the sequence is: no two are alike."""
    return tuple(next(k for k in range(len(clip)) if torch.equal(row, clip[k])) for row in shuffled)


def named(kind: type[OrderTask], orders: list[tuple[int, ...]]) -> int:
    """The class of a clip by definition, from one sequence or from those with an odd one."""
    order = orders[0]
    if kind is ClipOrder:
        return list(permutations(range(len(order)))).index(order)
    if kind is OrderVerification:
        straight = tuple(range(len(order)))
        assert order != straight[::-1], "backwards looks as likely as forwards"
        return int(order == straight)
    if kind is FrameOrder:
        merged = [p for p in permutations(range(len(order))) if p < p[::-1]]
        return merged.index(min(order, order[::-1]))
    segments = len(orders)
    assert [tuple(sorted(each)) for each in orders] == list(combinations(range(segments), segments - 1))
    odd = [number for number, each in enumerate(orders) if each != tuple(sorted(each))]
    assert len(odd) == 1
    assert orders[odd[0]] != tuple(sorted(orders[odd[0]], reverse=True))
    return odd[0]


def naive_logits(task: OrderTask, name: str, sequence: Tensor) -> Tensor:
    relation, last = task.relations[name], task.classifiers[name][1]  # pyright: ignore[reportIndexIssue]
    assert isinstance(relation, nn.Linear)
    related = [
        torch.clamp(relation.weight @ torch.cat([sequence[i], sequence[j]]) + relation.bias, min=0)
        for i, j in combinations(range(len(sequence)), 2)
    ]
    return last.weight @ torch.cat(related) + last.bias  # pyright: ignore


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize("case", KINDS)
def test_loss_and_gradients_equal_the_equation_for_the_drawn_orders(
    case: str, absent: str, leaves: Leaves, assert_equation: Assert, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, segments = KINDS[case]
    task, batch = small(kind, segments), leaves(6, segments, absent=ABSENT[absent])
    seen = watched(task, monkeypatch)
    outputs = task({"plain": batch}, torch.Generator().manual_seed(2))
    losses, hits = [], []
    for name in STREAMS:
        feature = batch.embedding if name == "fused" else batch.features[name]
        there = torch.stack(list(batch.present.values())).any(0) if name == "fused" else batch.present[name]
        whole = [b for b in range(6) if bool(there[b].all())]
        terms, right = [], []
        for row, b in enumerate(whole):
            orders = [applied(asked[row], feature[b]) for asked in seen[name]]
            logits = torch.cat([naive_logits(task, name, feature[b][list(order)]) for order in orders])
            target = named(kind, orders)
            terms.append(-(logits[target] - logits.exp().sum().log()))
            right.append(float(int(logits.argmax()) == target))
        losses.append(torch.stack(terms).mean())
        hits.append(sum(right) / len(right))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"plain": batch})
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / 2)


@pytest.mark.parametrize("case", KINDS)
def test_classes_of_every_batch_are_equal(case: str, leaves: Leaves, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, segments = KINDS[case]
    task = small(kind, segments)
    seen = watched(task, monkeypatch)
    classes = round(1 / task.chance) if task.chance else 0
    # A clip without sound: what is left must be even too.
    batch = leaves(2 * classes + 1, segments, absent={("audio", 0)})
    for seed in range(3):
        for asked in seen.values():
            asked.clear()
        task({"plain": batch}, torch.Generator().manual_seed(seed))
        found = [
            named(kind, [applied(asked[row], batch.features["audio"][row + 1]) for asked in seen["audio"]])
            for row in range(2 * classes)
        ]
        assert sorted(found) == sorted(2 * list(range(classes)))


@pytest.mark.parametrize("case", KINDS)
def test_every_order_task_needs_a_complete_clip(case: str, leaves: Leaves, assert_waits: Assert) -> None:
    kind, segments = KINDS[case]
    task = small(kind, segments)
    absent = {(name, b, b % segments) for name in ("rgb", "flow", "audio") for b in range(4)}
    assert_waits(task({"plain": leaves(4, segments, absent=absent)}, torch.Generator()), task)


def test_every_wrong_order_is_drawn(leaves: Leaves, monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = small(OrderVerification, 3), leaves(8, 3)
    seen = watched(task, monkeypatch)
    for seed in range(20):
        task({"plain": batch}, torch.Generator().manual_seed(seed))
    found = {applied(asked[b], batch.features["audio"][b]) for asked in seen["audio"] for b in range(8)}
    assert found == set(permutations(range(3))) - {(2, 1, 0)}
