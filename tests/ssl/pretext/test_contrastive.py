"""Cross-modal InfoNCE against a double loop, and on two processes against one."""

from collections.abc import Callable, Collection, Mapping, Sequence

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.shards.errors import RequestError
from modalgate.ssl.pretext.base import unit
from modalgate.ssl.pretext.contrastive import AcrossTime, CrossModal, LeaveOneOut, cross_modal_loss
from torch import Tensor, nn

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
NAMES = ("rgb", "flow", "audio")
GAPS: Absent = {("audio", 1), ("rgb", 2, 1), ("flow", 3)}


def naive(
    first: Tensor, second: Tensor, valid: Tensor, clips: Tensor, temperature: float
) -> tuple[Tensor, float, float]:
    """Loss, accuracy and chance."""
    total, hits, guesses, count = first.new_zeros(()), 0, 0.0, int(valid.sum())
    for query, bank in ((first, second), (second, first)):
        for i in range(len(query)):
            if not valid[i]:
                continue
            candidates = [j for j in range(len(bank)) if j == i or (valid[j] and clips[j] != clips[i])]
            scores = torch.stack([(query[i] * bank[j]).sum() / temperature for j in candidates])
            total = total - (scores[candidates.index(i)] - scores.exp().sum().log()) / (2 * count)
            hits += int(candidates[int(scores.argmax())] == i)
            guesses += 1 / len(candidates)
    return total, hits / (2 * count), guesses / (2 * count)


def rows(count: int, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return first.requires_grad_(), second.requires_grad_()


VALID = {
    "all": [True] * 8,
    "some": [True, False, True, True, False, False, True, True],
    "one clip": [True, True] + [False] * 6,
    "one row": [False] * 5 + [True] + [False] * 2,
}


@pytest.mark.parametrize("clips", [[0, 0, 1, 1, 2, 2, 3, 3], list(range(8))], ids=["two segments", "one segment"])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("case", VALID)
def test_loss_equals_the_double_loop(case: str, temperature: float, clips: list[int]) -> None:
    first, second = rows(8)
    valid, numbers = torch.tensor(VALID[case]), torch.tensor(clips)
    loss, accuracy, chance = cross_modal_loss(unit(first), unit(second), valid, numbers, temperature)
    expected, hits, guesses = naive(unit(first), unit(second), valid, numbers, temperature)
    torch.testing.assert_close(loss, expected)
    assert float(accuracy) == pytest.approx(hits)
    assert float(chance) == pytest.approx(guesses)
    ours, theirs = torch.autograd.grad(loss, (first, second)), torch.autograd.grad(expected, (first, second))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_segments_of_one_clip_are_not_negatives() -> None:
    first, second = rows(6)
    valid, clips = torch.ones(6, dtype=torch.bool), torch.tensor([0, 0, 0, 1, 1, 1])
    loss, _, _ = cross_modal_loss(unit(first), unit(second), valid, clips, 0.1)
    # Row 1 is of the clip of row 0 alone: only rows 3 to 5 and row 1's own loss may react to it.
    alone, _, _ = cross_modal_loss(unit(first), unit(second), valid & (torch.arange(6) == 0), clips, 0.1)
    assert float(alone.detach()) == 0, "a single clip has no negatives"
    assert float(loss.detach()) > 0


@pytest.mark.parametrize("fill", [0.0, 100.0])
def test_invalid_rows_change_nothing(fill: float) -> None:
    first, second = rows(8)
    valid, clips = torch.tensor(VALID["some"]), torch.arange(8)
    expected, _, _ = cross_modal_loss(unit(first), unit(second), valid, clips, 0.1)
    other = torch.where(valid[:, None], second, fill)
    found, _, _ = cross_modal_loss(unit(torch.where(valid[:, None], first, fill)), unit(other), valid, clips, 0.1)
    torch.testing.assert_close(found, expected)


def test_no_valid_pair_is_zero_with_gradient() -> None:
    first, second = rows(4)
    loss, accuracy, chance = cross_modal_loss(
        unit(first), unit(second), torch.zeros(4, dtype=torch.bool), torch.arange(4), 0.1
    )
    assert float(loss.detach()) == 0
    assert accuracy.isnan()
    assert chance.isnan()
    for gradient in torch.autograd.grad(loss, (first, second)):
        assert (gradient == 0).all()


def between(first: nn.Module, v: Tensor, second: nn.Module, a: Tensor, mask: Tensor) -> tuple[Tensor, float, float]:
    """Loss, accuracy and chance of features (B, K, D) under their heads."""
    clips = torch.arange(len(v)).repeat_interleave(v.shape[1])
    rows = [[z / z.square().sum().sqrt() for z in h(f).flatten(0, 1)] for h, f in ((first, v), (second, a))]
    return naive(torch.stack(rows[0]), torch.stack(rows[1]), mask.flatten(), clips, 0.07)


def assert_parts(outputs: Mapping[str, Tensor], parts: Sequence[tuple[Tensor, float, float]]) -> None:
    for place, name in ((1, "accuracy"), (2, "chance")):
        assert float(outputs[name]) == pytest.approx(sum(float(part[place]) for part in parts) / len(parts))


def encoded(clips: int, segments: int, absent_audio: list[int], seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    names = ("rgb", "flow", "audio")
    features = {name: torch.randn(clips, segments, 8, generator=generator) for name in names}
    present = {name: torch.ones(clips, segments, dtype=torch.bool) for name in names}
    present["audio"][absent_audio] = False
    features["audio"] = features["audio"] * present["audio"][..., None]
    fused = torch.stack(list(features.values())).mean(dim=0)
    weights = torch.full((clips, segments, 3), 1 / 3)
    return Encoded(names, features, present, fused, weights, torch.zeros(()), torch.zeros(clips, segments))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (None, [("rgb", "flow"), ("rgb", "audio"), ("flow", "audio")]),
        ([["rgb", "audio"]], [("rgb", "audio")]),
        ([["fused", "audio"]], [("fused", "audio")]),
    ],
)
def test_the_task_and_its_gradients_are_the_mean_over_its_pairs(
    pairs: list[list[str]] | None, expected: list[tuple[str, str]], leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = CrossModal(NAMES, 8, pairs=pairs, hidden=6, dimension=4).double()
    batch = leaves(4, 2, NAMES, GAPS)
    assert task.pairs == expected
    outputs = task({"plain": batch}, torch.Generator())
    values = batch.features | {"fused": batch.embedding}
    masks = batch.present | {"fused": torch.ones(4, 2, dtype=torch.bool)}
    parts = [between(task.heads[a], values[a], task.heads[b], values[b], masks[a] & masks[b]) for a, b in expected]
    assert_parts(outputs, parts)
    assert_equation(outputs["loss"], torch.stack([loss for loss, _, _ in parts]).mean(), task, {"plain": batch})


def test_a_batch_without_audio_still_reaches_every_head() -> None:
    task = CrossModal(("rgb", "audio"), 8, hidden=6, dimension=4)
    outputs = task({"plain": encoded(3, 2, absent_audio=[0, 1, 2])}, torch.Generator())
    assert "accuracy" not in outputs
    outputs["loss"].backward()
    assert float(outputs["loss"].detach()) == 0
    for parameter in task.parameters():
        assert parameter.grad is not None
        assert (parameter.grad == 0).all()


def test_it_learns_which_rows_belong_together() -> None:
    torch.manual_seed(0)
    task = CrossModal(("rgb", "audio"), 8, hidden=32, dimension=16)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q

    def batch() -> Encoded:
        made = encoded(16, 1, absent_audio=[], seed=int(torch.randint(1 << 30, ())))
        made.features["audio"] = torch.tanh(made.features["rgb"] @ turn)
        return made

    for _ in range(120):
        optimizer.zero_grad()
        task({"plain": batch()}, torch.Generator())["loss"].backward()
        optimizer.step()
    assert float(task({"plain": batch()}, torch.Generator())["accuracy"]) > 0.6, "chance is 1/16"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([["rgb", "adio"]], "'adio': did you mean 'audio'"),
        ([["rgb"]], "two different"),
        ([["rgb", "rgb"]], "two diff"),
    ],
)
def test_invalid_pair_is_rejected(pairs: list[list[str]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        CrossModal(("rgb", "audio"), 8, pairs=pairs)


@pytest.mark.parametrize("streams", [None, ["audio"], ["audio", "fused"]])
def test_across_time_contrasts_a_segment_with_the_clips_next_one(
    streams: list[str] | None, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = AcrossTime(NAMES, 8, 3, streams, hidden=6, dimension=4).double()
    batch = leaves(4, 3, NAMES, GAPS)
    outputs = task({"plain": batch}, torch.Generator())
    parts, following = [], [1, 2, 0]
    for name in streams or NAMES:
        feature, mask = batch.features.get(name), batch.present.get(name)
        if feature is None or mask is None:
            feature, mask = batch.embedding, torch.stack(list(batch.present.values())).any(dim=0)
        head = task.heads[name]
        parts.append(between(head, feature, head, feature[:, following], mask & mask[:, following]))
    assert_parts(outputs, parts)
    assert_equation(outputs["loss"], torch.stack([loss for loss, _, _ in parts]).mean(), task, {"plain": batch})


@pytest.mark.parametrize(
    "absent", [set(), GAPS, {(name, 2) for name in ("rgb", "flow")}], ids=["all", "gaps", "alone"]
)
def test_leave_one_out_compares_each_modality_with_the_others(
    absent: Absent, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = LeaveOneOut(NAMES, 8, hidden=6, dimension=4).double()
    assert task.reads == ["plain", "without_rgb", "without_flow", "without_audio"]
    views = {view: leaves(4, 2, NAMES, absent, seed=seed) for seed, view in enumerate(task.reads)}
    plain = views["plain"]
    outputs = task(views, torch.Generator())
    parts = []
    for name in NAMES:
        rest = [other for other in NAMES if other != name]
        mask = plain.present[name] & (plain.present[rest[0]] | plain.present[rest[1]])
        fused = views[f"without_{name}"].embedding
        parts.append(between(task.heads["fused"], fused, task.heads[name], plain.features[name], mask))
    assert_parts(outputs, parts)
    assert_equation(outputs["loss"], torch.stack([loss for loss, _, _ in parts]).mean(), task, views)


def test_without_negatives_the_loss_is_zero_with_gradient(leaves: Leaves, assert_waits: Assert) -> None:
    silent = {(name, clip) for name in NAMES[1:] for clip in range(3)}
    task = CrossModal(NAMES, 8, hidden=6, dimension=4).double()
    assert_waits(task({"plain": leaves(3, 2, NAMES, silent)}, torch.Generator()), task)
    task = LeaveOneOut(NAMES, 8, hidden=6, dimension=4).double()
    assert_waits(task({view: leaves(3, 2, NAMES, silent) for view in task.reads}, torch.Generator()), task)
    task = AcrossTime(NAMES, 8, 2, ["audio"], hidden=6, dimension=4).double()
    assert_waits(task({"plain": leaves(3, 2, NAMES, silent)}, torch.Generator()), task)


def test_across_time_needs_two_segments_and_known_streams() -> None:
    with pytest.raises(RequestError, match="at least 2"):
        AcrossTime(("rgb", "audio"), 8, 1)
    with pytest.raises(RequestError, match="'audio'"):
        AcrossTime(("rgb", "audio"), 8, 3, streams=["adio"])
