"""Clip order: the numbering of permutations, the logits of the paper, and what can be learned from what."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from modalgate.fusion.backbone import Backbone, Encoded
from modalgate.shards.batch import Batch
from modalgate.shards.errors import RequestError
from modalgate.shards.transforms import ClipSpec, Preparation
from modalgate.ssl.order import (
    ClipOrder,
    FrameOrder,
    OddOneOut,
    OrderTask,
    OrderVerification,
    deal_evenly,
    shuffle_segments,
)
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
def test_classes_are_dealt_evenly_in_random_order(count: int, classes: int) -> None:
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


def test_loss_and_accuracy_score_the_dealt_permutations() -> None:
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


def naive_logits(task: OrderTask, name: str, segments: list[Tensor]) -> Tensor:
    relation, last = task.relations[name], task.classifiers[name][1]  # pyright: ignore
    places = [(i, j) for i in range(len(segments)) for j in range(i + 1, len(segments))]
    pairs = [torch.cat([segments[i], segments[j]]) for i, j in places]
    related = [torch.clamp(relation.weight @ pair + relation.bias, min=0) for pair in pairs]
    return last.weight @ torch.cat(related) + last.bias


def naive_order(task: OrderTask, feature: Tensor, seed: int) -> tuple[Tensor, list[int], list[Tensor]]:
    """Mean cross-entropy, classes and logits of the clips (B, K, D), from the draws that `seed` gives."""
    generator = torch.Generator().manual_seed(seed)
    count, segments = feature.shape[:2]
    straight = list(range(segments))
    wrong = [list(order) for order in permutations(straight) if list(order) not in (straight, straight[::-1])]
    logits = []
    if isinstance(task, OrderVerification):
        target = deal_evenly(count, 2, generator).tolist()
        mixed = torch.randint(len(wrong), (count,), generator=generator).tolist()
        orders = [straight if target[b] else wrong[mixed[b]] for b in range(count)]
        logits = [naive_logits(task, "fused", [feature[b, k] for k in orders[b]]) for b in range(count)]
    elif isinstance(task, FrameOrder):
        kept = [list(order) for order in permutations(straight) if order[0] < order[-1]]
        target = deal_evenly(count, len(kept), generator).tolist()
        mirrored = (torch.rand(count, 1, generator=generator) < 0.5)[:, 0].tolist()
        orders = [kept[target[b]][::-1] if mirrored[b] else kept[target[b]] for b in range(count)]
        logits = [naive_logits(task, "fused", [feature[b, k] for k in orders[b]]) for b in range(count)]
    else:
        short = list(range(segments - 1))
        odd = [list(order) for order in permutations(short) if list(order) not in (short, short[::-1])]
        target = deal_evenly(count, segments, generator).tolist()
        mixed = torch.randint(len(odd), (count,), generator=generator).tolist()
        for b in range(count):
            scores = []
            for number in range(segments):
                # Sequence `number` leaves out the segment that is as far from the end.
                sequence = [k for k in straight if k != segments - 1 - number]
                if number == target[b]:
                    sequence = [sequence[place] for place in odd[mixed[b]]]
                scores.append(naive_logits(task, "fused", [feature[b, k] for k in sequence])[0])
            logits.append(torch.stack(scores))
    terms = [-(row.exp()[number] / row.exp().sum()).log() for row, number in zip(logits, target, strict=True)]
    return torch.stack(terms).mean(), target, logits


@pytest.mark.parametrize("absent", [[], [("rgb", 2)], [("rgb", 0), ("rgb", 7)]])
@pytest.mark.parametrize(
    ("kind", "segments", "chance"),
    [(OrderVerification, 3, 1 / 2), (FrameOrder, 3, 1 / 3), (FrameOrder, 4, 1 / 12), (OddOneOut, 4, 1 / 4)],
)
def test_order_tasks_equal_the_loop_over_clips(
    kind: type[OrderVerification | FrameOrder | OddOneOut],
    segments: int,
    chance: float,
    absent: list[tuple[str, int]],
    draw_encoded: Callable[..., Encoded],
    same_loss: Callable[..., None],
) -> None:
    torch.manual_seed(0)
    task = kind(("rgb",), WIDTH, segments, hidden=5).double().eval()
    assert task.chance == pytest.approx(chance)
    plain = draw_encoded(("rgb",), clips=9, segments=segments, absent=absent)
    whole = [clip for clip in range(9) if ("rgb", clip) not in absent]
    outputs = task({"plain": plain}, torch.Generator().manual_seed(4))
    expected, classes, logits = naive_order(task, plain.embedding[whole], 4)
    same_loss(outputs["loss"], expected, [plain.embedding, *task.parameters()])
    hits = [int(row.argmax()) == number for row, number in zip(logits, classes, strict=True)]
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))
    counts = [classes.count(number) for number in range(round(1 / chance))]
    assert max(counts) - min(counts) <= 1, "classes are dealt evenly in every batch"


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


def test_no_whole_clip_is_zero_with_gradient() -> None:
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


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(RequestError, match=r"data\.segments of at least 2, not 1"):
        ClipOrder(("rgb",), WIDTH, 1)
    with pytest.raises(RequestError, match="'adio': did you mean 'audio'"):
        ClipOrder(("rgb", "audio"), WIDTH, 3, streams=["adio"])
