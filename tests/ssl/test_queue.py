"""Contrast against earlier batches, by loops over a plain list of what was pushed."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext import unit
from modalgate.ssl.queue import Agreement, MomentumQueue, RowQueue
from torch import Tensor

NAMES = ("rgb", "audio")
ABSENT = [[], [("audio", 1)], [("rgb", 0), ("audio", 3)]]
Stored = list[tuple[int, dict[str, Tensor], dict[str, bool]]]


def batches(leaves: Callable[..., Encoded], absent: list[tuple[str, int]]) -> list[dict[str, Encoded]]:
    """Two batches of five clips; the second one meets two clips of the first again."""
    found = []
    for number, clips in enumerate((range(5), (3, 4, 7, 8, 9))):
        plain = leaves(names=NAMES, segments=2, absent=absent, seed=number)
        plain.facts["clip"] = torch.tensor(list(clips))
        found.append({"plain": plain, "teacher": leaves(names=NAMES, segments=2, absent=absent, seed=10 + number)})
    return found


def places(absent: list[tuple[str, int]]) -> list[tuple[int, int, dict[str, bool]]]:
    """Clip, segment and presence of every row of a batch."""
    return [(c, k, {name: (name, c) not in absent for name in NAMES}) for c in range(5) for k in range(2)]


def contrast(query: Tensor, positive: Tensor, negatives: list[Tensor]) -> tuple[Tensor, bool]:
    scores = torch.stack([query @ positive, *(query @ negative for negative in negatives)]) / 0.07
    return -(scores[0].exp() / scores.exp().sum()).log(), int(scores.argmax()) == 0


@pytest.mark.parametrize("absent", ABSENT)
def test_momentum_queue_meets_keys_of_earlier_batches(
    absent: list[tuple[str, int]], leaves: Callable[..., Encoded], assert_equation: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    task = MomentumQueue(NAMES, 8, size=64, momentum=0.5, hidden=6, dimension=5).double()
    first, second = batches(leaves, absent)
    slow = deepcopy(task.heads)
    with torch.no_grad():
        for parameter in task.heads.parameters():
            parameter.add_(torch.randn_like(parameter))

    def follow() -> None:
        with torch.no_grad():
            for old, new in zip(slow.parameters(), task.heads.parameters(), strict=True):
                old.copy_(0.5 * old + 0.5 * new)

    follow()
    nothing = task(first, torch.Generator())
    assert float(nothing["loss"].detach()) == 0, "an empty queue has nothing to tell apart"
    keys: Stored = []
    with torch.no_grad():
        for clip, segment, here in places(absent):
            rows = {name: unit(slow[name](first["teacher"].features[name][clip, segment])) for name in NAMES}
            keys.append((clip, rows, here))
    follow()
    outputs = task(second, torch.Generator())
    numbers, losses, accuracies = [3, 4, 7, 8, 9], [], []
    for query, key in (NAMES, NAMES[::-1]):
        terms, hits = [], []
        for clip, segment, here in places(absent):
            if not (here["rgb"] and here["audio"]):
                continue
            asked = unit(task.heads[query](second["plain"].features[query][clip, segment]))
            answer = unit(slow[key](second["teacher"].features[key][clip, segment])).detach()
            negatives = [rows[key] for other, rows, there in keys if other != numbers[clip] and there[key]]
            term, hit = contrast(asked, answer, negatives)
            terms.append(term)
            hits.append(hit)
        losses.append(torch.stack(terms).mean())
        accuracies.append(sum(hits) / len(hits))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, second)
    assert float(outputs["accuracy"]) == pytest.approx(sum(accuracies) / 2)


@pytest.mark.parametrize("progress", [0.2, 0.8])
@pytest.mark.parametrize("absent", ABSENT)
def test_agreement_mines_what_both_modalities_find_alike(
    absent: list[tuple[str, int]],
    progress: float,
    leaves: Callable[..., Encoded],
    assert_equation: Callable[..., None],
) -> None:
    torch.manual_seed(0)
    task = Agreement(NAMES, 8, size=64, positives=2, hidden=6, dimension=5).double()
    task.progress = progress
    first, second = batches(leaves, absent)
    task(first, torch.Generator())
    bank: Stored = []
    with torch.no_grad():
        for clip, segment, here in places(absent):
            rows = {name: unit(task.heads[name](first["plain"].features[name][clip, segment])) for name in NAMES}
            bank.append((clip, rows, here))
    outputs = task(second, torch.Generator())
    numbers = [3, 4, 7, 8, 9]
    across: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    within: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    hits: dict[str, list[bool]] = {name: [] for name in NAMES}
    for clip, segment, here in places(absent):
        if not (here["rgb"] and here["audio"]):
            continue
        own = {name: unit(task.heads[name](second["plain"].features[name][clip, segment])) for name in NAMES}
        others = [rows for other, rows, there in bank if other != numbers[clip] and there["rgb"] and there["audio"]]
        for query, key in (NAMES, NAMES[::-1]):
            term, hit = contrast(own[query], own[key], [rows[key] for rows in others])
            across[query].append(term)
            hits[query].append(hit)
        alike = [min((own[name].detach() @ rows[name]).item() for name in NAMES) for rows in others]
        order = sorted(range(len(others)), key=lambda number: -alike[number])
        for name in NAMES:
            bottom = torch.stack([(own[name] @ others[number][name] / 0.07).exp() for number in order[2:]]).sum()
            tops = [(own[name] @ others[number][name] / 0.07).exp() for number in order[:2]]
            within[name].append(torch.stack([-(top / (top + bottom)).log() for top in tops]).mean())
    parts = [torch.stack(across[name]).mean() for name in NAMES]
    if progress > 0.5:
        parts += [torch.stack(within[name]).mean() for name in NAMES]
    assert_equation(outputs["loss"], torch.stack(parts).mean(), task, second)
    assert float(outputs["accuracy"]) == pytest.approx(sum(sum(hits[n]) / len(hits[n]) for n in NAMES) / 2)


@pytest.mark.parametrize("kind", [MomentumQueue, Agreement])
def test_no_common_row_is_zero_with_gradient(
    kind: type[MomentumQueue | Agreement], leaves: Callable[..., Encoded]
) -> None:
    task = kind(NAMES, 8, size=64, hidden=6, dimension=5).double()
    silent = [("audio", clip) for clip in range(5)]
    for batch in batches(leaves, silent):
        outputs = task(batch, torch.Generator())
        outputs["loss"].backward()
        assert float(outputs["loss"].detach()) == 0
        assert "accuracy" not in outputs
    assert all(p.grad is not None and not bool(p.grad.any()) for p in task.heads.parameters())


def test_a_queue_keeps_the_newest_rows_in_turn() -> None:
    queue = RowQueue(1, 5, 2)
    for number in range(4):
        rows = torch.full((1, 3, 2), float(number))
        queue.push(rows, torch.ones(1, 3, dtype=torch.bool), torch.full((3,), number))
    assert sorted(queue.clips.tolist()) == [2, 2, 3, 3, 3]
    assert (queue.rows[0, :, 0] == queue.clips).all()
    queue.push(torch.arange(7.0).view(1, 7, 1).expand(1, 7, 2), torch.ones(1, 7, dtype=torch.bool), torch.arange(7))
    assert sorted(queue.clips.tolist()) == [2, 3, 4, 5, 6]
