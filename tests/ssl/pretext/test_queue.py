"""Queues: their contents, and their tasks against loops over rows."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.queue import Agreement, MomentumQueue, RowQueue
from torch import Tensor, nn

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
NAMES, CLIPS, SEGMENTS = ("rgb", "flow", "audio"), 4, 2
PAIRS = [["rgb", "audio"], ["flow", "audio"]]
ABSENT: dict[str, Absent] = {"all there": (), "gaps": {("audio", 0), ("rgb", 2, 1), ("flow", 3)}}


@dataclass(frozen=True)
class Row:
    """One stored segment of the naive form: its clip, and the unit rows of present modalities."""

    clip: int
    rows: dict[str, Tensor]


def batches(leaves: Leaves, count: int, absent: Absent) -> list[dict[str, Encoded]]:
    """Batches of an endless stream; the last meets two clips of the first again."""
    made = []
    for number in range(count):
        plain, slow = (leaves(CLIPS, SEGMENTS, NAMES, absent, seed=2 * number + k) for k in range(2))
        plain.facts["clip"] = torch.arange(CLIPS) + (CLIPS * number if number < count - 1 else 2)
        made.append({"plain": plain, "teacher": slow})
    return made


def rows_of(heads: nn.ModuleDict, source: Encoded, plain: Encoded) -> list[Row]:
    found = []
    for b in range(CLIPS):
        for k in range(SEGMENTS):
            there = {}
            for name in NAMES:
                if plain.present[name][b, k]:
                    z = heads[name](source.features[name][b, k])
                    there[name] = z / z.square().sum().sqrt()
            found.append(Row(int(plain.facts["clip"][b]), there))
    return found


def detached(rows: list[Row]) -> list[Row]:
    return [Row(row.clip, {name: z.detach() for name, z in row.rows.items()}) for row in rows]


def infonce(
    query: Tensor, positives: list[Tensor], negatives: list[Tensor], temperature: float
) -> tuple[Tensor, bool]:
    """`-log(e^p / (e^p + sum of e^n))`, the mean over positives; and whether the nearest of all is a positive."""
    bottom = sum(((query * n).sum() / temperature).exp() for n in negatives)
    tops = [((query * p).sum() / temperature).exp() for p in positives]
    terms = [-(top / (top + bottom)).log() for top in tops]
    nearest = max(float((query * n).sum().detach()) for n in negatives)
    return torch.stack(terms).mean(), max(float((query * p).sum().detach()) for p in positives) > nearest


def cross(
    first: str, second: str, queries: list[Row], keys: list[Row], queue: list[Row], needs: tuple[str, ...]
) -> list[tuple[Tensor, list[bool], list[float]]]:
    """Both ways: the loss, the hits and the chances of queries whose positive is the key of the same segment, and
    whose negatives are the keys of other clips: of this batch, as fresh as the positive, and of the queue."""
    found = []
    for query, key in ((first, second), (second, first)):
        terms, hits, chances = [], [], []
        for number, row in enumerate(queries):
            if query not in row.rows or key not in row.rows:
                continue
            bank = [other for other in keys if key in other.rows]
            bank += [other for other in queue if key in other.rows and all(name in other.rows for name in needs)]
            negatives = [other.rows[key] for other in bank if other.clip != row.clip]
            term, hit = infonce(row.rows[query], [keys[number].rows[key]], negatives, 0.2)
            terms.append(term)
            hits.append(hit)
            chances.append(1 / (1 + len(negatives)))
        found.append((torch.stack(terms).mean(), hits, chances))
    return found


def assert_figures(outputs: dict[str, Tensor], parts: list[tuple[Tensor, list[bool], list[float]]]) -> None:
    assert float(outputs["accuracy"]) == pytest.approx(sum(sum(h) / len(h) for _, h, _ in parts) / len(parts))
    assert float(outputs["chance"]) == pytest.approx(sum(sum(c) / len(c) for _, _, c in parts) / len(parts))


@pytest.mark.parametrize("size", [64, 11], ids=["all", "the last"])
@pytest.mark.parametrize("absent", ABSENT)
def test_the_momentum_queue_and_its_gradients_equal_the_loop(
    absent: str, size: int, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = MomentumQueue(NAMES, 8, PAIRS, size, temperature=0.2, momentum=0.6, hidden=6, dimension=4).double().train()
    queue: list[Row] = []
    slow = [parameter.clone() for parameter in task.slow_heads.parameters()]
    for views in batches(leaves, 3, ABSENT[absent]):
        with torch.no_grad():
            for parameter in task.heads.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            slow = [0.6 * old + 0.4 * new for old, new in zip(slow, task.heads.parameters(), strict=True)]
        outputs = task(views, torch.Generator())
        for mine, expected in zip(task.slow_heads.parameters(), slow, strict=True):
            torch.testing.assert_close(mine, expected)
        queries = rows_of(task.heads, views["plain"], views["plain"])
        keys = detached(rows_of(task.slow_heads, views["teacher"], views["plain"]))
        parts = [part for first, second in PAIRS for part in cross(first, second, queries, keys, queue, ())]
        assert_equation(outputs["loss"], torch.stack([loss for loss, _, _ in parts]).mean(), task, views)
        assert_figures(outputs, parts)
        queue = [*queue, *keys][-size:]


@pytest.mark.parametrize("progress", [0.2, 0.8], ids=["before mining", "mining"])
@pytest.mark.parametrize("absent", ABSENT)
def test_agreement_and_its_gradients_equal_the_loop(
    absent: str, progress: float, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = Agreement(NAMES, 8, PAIRS, 20, positives=3, temperature=0.2, hidden=6, dimension=4).double().train()
    task.progress = progress
    queue: list[Row] = []
    for number, views in enumerate(batches(leaves, 3, ABSENT[absent])):
        outputs = task(views, torch.Generator())
        rows = rows_of(task.heads, views["plain"], views["plain"])
        losses, parts = [], []
        for first, second in PAIRS:
            pair = cross(first, second, rows, rows, queue, (first, second))
            parts += pair
            losses += [loss for loss, _, _ in pair]
            if progress < 0.5 or number == 0:
                continue
            for name in (first, second):
                terms = []
                for row in rows:
                    if not {first, second} <= row.rows.keys():
                        continue
                    others = [o for o in queue if {first, second} <= o.rows.keys() and o.clip != row.clip]

                    def agreed(other: Row, row: Row = row, both: tuple[str, str] = (first, second)) -> float:
                        return min(float((row.rows[n] * other.rows[n]).sum().detach()) for n in both)

                    others.sort(key=agreed, reverse=True)
                    mined, rest = ([o.rows[name] for o in part] for part in (others[:3], others[3:]))
                    terms.append(infonce(row.rows[name], mined, rest, 0.2)[0])
                losses.append(torch.stack(terms).mean())
        assert_equation(outputs["loss"], torch.stack(losses).mean(), task, views)
        assert_figures(outputs, parts)
        queue = [*queue, *detached(rows)][-20:]


def test_evaluation_does_not_change_queue_and_slow_heads(leaves: Leaves) -> None:
    for task in (MomentumQueue(NAMES, 8, size=16), Agreement(NAMES, 8, size=16)):
        first, second = batches(leaves, 2, ())
        task.double().train()(first, torch.Generator())
        before = {name: value.clone() for name, value in task.state_dict().items()}
        task.eval()(second, torch.Generator())
        assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_a_queue_keeps_the_last_rows_with_their_clips() -> None:
    queue, sent = RowQueue(2, 5, 3), torch.randn(2, 13, 3)
    present = torch.rand(2, 13) < 0.5
    for first, last in ((0, 3), (3, 6), (6, 13)):
        queue.push(sent[:, first:last], present[:, first:last], torch.arange(first, last))
        order = queue.clips.argsort()
        kept = [number for number in queue.clips[order].tolist() if number >= 0]
        assert kept == list(range(max(last - 5, 0), last))
        assert torch.equal(queue.rows[:, order][:, -len(kept) :], sent[:, kept])
        assert torch.equal(queue.present[:, order][:, -len(kept) :], present[:, kept])


@pytest.mark.parametrize("kind", [MomentumQueue, Agreement])
def test_age_of_keys_is_not_a_shortcut(kind: type[MomentumQueue | Agreement], leaves: Leaves) -> None:
    torch.manual_seed(0)
    task = kind(("rgb", "audio"), 8, size=16, hidden=6, dimension=4).double().train()
    for heads in (task.heads, getattr(task, "slow_heads", task.heads)):
        for name in ("rgb", "audio"):
            heads[name].load_state_dict(task.heads["rgb"].state_dict())
    plain = leaves(CLIPS, 1, ("rgb", "audio"))
    alike = torch.randn(8, dtype=torch.float64).expand(CLIPS, 1, 8)
    plain.features = {"rgb": alike, "audio": alike}
    task({"plain": plain, "teacher": plain}, torch.Generator())
    # The encoders have moved since: every old row is the opposite of a new one.
    task.queue.rows.neg_()
    plain.facts["clip"] = plain.facts["clip"] + CLIPS
    outputs = task.eval()({"plain": plain, "teacher": plain}, torch.Generator())
    assert float(outputs["loss"].detach()) >= math.log(CLIPS) - 1e-6
    assert float(outputs["accuracy"]) <= 1 / CLIPS


@pytest.mark.parametrize("kind", [MomentumQueue, Agreement])
def test_batch_without_valid_rows_has_zero_loss_with_gradient(
    kind: type[MomentumQueue | Agreement], leaves: Leaves, assert_waits: Assert
) -> None:
    task = kind(NAMES, 8, PAIRS, hidden=6, dimension=4).double().train()
    for views in batches(leaves, 2, {("audio", b) for b in range(CLIPS)}):
        assert_waits(task(views, torch.Generator()), task)
