"""GDT against a loop over rows, each with its clip, moment and direction."""

from collections.abc import Callable, Collection
from itertools import product

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.transformations import CHOICES, Gdt
from torch import Tensor

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
NAMES = ("rgb", "flow", "audio")
ABSENT: dict[str, Absent] = {"all there": (), "gaps": {("audio", 0), ("rgb", 2, 1), ("flow", 3)}}
CLIPS, SEGMENTS = 4, 3


def two_views(leaves: Leaves, absent: Absent) -> dict[str, Encoded]:
    """The plain clips, and one segment of each reversed: the one with the number of the clip."""
    plain, turned = leaves(CLIPS, SEGMENTS, NAMES, absent), leaves(CLIPS, 1, NAMES, seed=1)
    taken = torch.arange(CLIPS) % SEGMENTS
    turned.present = {name: plain.present[name][torch.arange(CLIPS), taken][:, None] for name in NAMES}
    turned.facts["segments"] = taken[:, None]
    # With flow, the task compares the view `forward` instead of the plain clips.
    other = leaves(CLIPS, SEGMENTS, NAMES, absent, seed=2)
    return {"plain": other, "forward": plain, "reverse": turned}


def relation(one: tuple[int, int, bool], other: tuple[int, int, bool], shift: str, reversal: str) -> str:
    """Whether two rows (clip, moment, backwards) are positive, negative or neither."""
    if one[0] != other[0]:
        return "negative"
    changes = [shift] * (one[1] != other[1]) + [reversal] * (one[2] != other[2])
    if "distinctive" in changes:
        return "negative"
    return "neither" if "ignored" in changes else "positive"


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize(("shift", "reversal"), product(CHOICES, CHOICES))
def test_loss_and_gradients_equal_the_loop(
    shift: str, reversal: str, absent: str, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    pairs = [["rgb", "audio"], ["flow", "audio"]]
    task = Gdt(NAMES, 8, pairs, shift, reversal, temperature=0.3, hidden=6, dimension=4).double()
    views = two_views(leaves, ABSENT[absent])
    outputs = task(views, torch.Generator())

    rows: list[tuple[int, int, bool]] = [(b, k, False) for b in range(CLIPS) for k in range(SEGMENTS)]
    rows += [(b, b % SEGMENTS, True) for b in range(CLIPS)]

    def there(name: str, row: tuple[int, int, bool]) -> bool:
        return bool(views["forward"].present[name][row[:2]])

    def projected(name: str, row: tuple[int, int, bool]) -> Tensor:
        b, k, backwards = row
        z = task.heads[name](
            views["reverse"].features[name][b, 0] if backwards else views["forward"].features[name][b, k]
        )
        return z / z.square().sum().sqrt()

    units = {(name, row): projected(name, row) for name in NAMES for row in rows}
    losses, hits, guesses, told = [], [], [], []
    for first, second in pairs:
        for query, key in ((first, second), (second, first)):
            terms, right, guess = [], [], []
            for one in rows:
                if not (there(query, one) and there(key, one)):
                    continue
                similar: dict[str, list[Tensor]] = {"positive": [], "negative": [], "neither": []}
                for other in rows:
                    if there(key, other):
                        score = (units[query, one] * units[key, other]).sum() / 0.3
                        similar[relation(one, other, shift, reversal)].append(score)
                positives, negatives = similar["positive"], similar["negative"]
                bottom = torch.stack(negatives).exp().sum()
                terms.append(torch.stack([-(p.exp() / (p.exp() + bottom)).log() for p in positives]).mean())
                right.append(float(max(positives) > max(negatives)))
                reversed_one = (one[0], one[1], not one[2])
                if one[1] == one[0] % SEGMENTS:
                    own, turned = ((units[query, one] * units[key, row]).sum() for row in (one, reversed_one))
                    told.append(float(own > turned))
                guess.append(len(positives) / len(positives + negatives))
            losses.append(torch.stack(terms).mean())
            hits.append(sum(right) / len(right))
            guesses.append(sum(guess) / len(guess))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, views)
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))
    assert float(outputs["chance"]) == pytest.approx(sum(guesses) / len(guesses))
    if reversal == "distinctive":
        assert float(outputs["direction_accuracy"]) == pytest.approx(sum(told) / len(told))
    else:
        assert "direction_accuracy" not in outputs


def test_batch_without_valid_rows_has_zero_loss_with_gradient(leaves: Leaves, assert_waits: Assert) -> None:
    task = Gdt(NAMES, 8, [["rgb", "audio"]], hidden=6, dimension=4).double()
    views = two_views(leaves, {("audio", b) for b in range(CLIPS)})
    assert_waits(task(views, torch.Generator()), task)
