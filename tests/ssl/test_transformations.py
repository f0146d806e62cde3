"""Generalised data transformations against a loop over rows of (clip, moment, direction)."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext import unit
from modalgate.ssl.transformations import Gdt

NAMES = ("rgb", "audio")


@pytest.mark.parametrize("absent", [[], [("audio", 1)], [("rgb", 0), ("audio", 3)]])
@pytest.mark.parametrize(
    ("shift", "reversal"),
    [("distinctive", "distinctive"), ("invariant", "ignored"), ("ignored", "invariant"), ("invariant", "invariant")],
)
def test_choices_decide_who_is_positive_and_who_negative(
    shift: str,
    reversal: str,
    absent: list[tuple[str, int]],
    leaves: Callable[..., Encoded],
    assert_equation: Callable[..., None],
) -> None:
    torch.manual_seed(0)
    task = Gdt(("rgb", "audio"), 8, shift=shift, reversal=reversal, hidden=6, dimension=5).double()
    chosen = [0, 2, 1, 1, 0]
    plain, turned = leaves(names=NAMES, absent=absent), leaves(names=NAMES, segments=1, absent=absent, seed=1)
    turned.facts["segments"] = torch.tensor(chosen)[:, None]
    outputs = task({"plain": plain, "reverse": turned}, torch.Generator())
    rows = [(clip, segment, False) for clip in range(5) for segment in range(3)]
    rows += [(clip, chosen[clip], True) for clip in range(5)]

    def embedded(name: str, row: tuple[int, int, bool]) -> torch.Tensor:
        clip, segment, backwards = row
        feature = turned.features[name][clip, 0] if backwards else plain.features[name][clip, segment]
        return unit(task.heads[name](feature))

    losses, accuracies = [], []
    for query, key in (("rgb", "audio"), ("audio", "rgb")):
        terms, hits = [], []
        for row in rows:
            if (query, row[0]) in absent or (key, row[0]) in absent:
                continue
            positives, negatives = [], []
            for other in rows:
                if (key, other[0]) in absent:
                    continue
                value = (embedded(query, row) @ embedded(key, other)) / 0.07
                if other[0] != row[0]:
                    negatives.append(value)
                elif other == row:
                    positives.append(value)
                elif other[2] == row[2] and other[1] != row[1]:
                    {"distinctive": negatives, "invariant": positives}.get(shift, []).append(value)
                elif other[1] == row[1]:
                    {"distinctive": negatives, "invariant": positives}.get(reversal, []).append(value)
            bottom = torch.stack(negatives).exp().sum()
            terms.append(torch.stack([-(p.exp() / (p.exp() + bottom)).log() for p in positives]).mean())
            hits.append(bool(torch.stack(positives).max() > torch.stack(negatives).max()))
        losses.append(torch.stack(terms).mean())
        accuracies.append(sum(hits) / len(hits))
    assert_equation(outputs["loss"], torch.stack(losses).mean(), task, {"plain": plain, "reverse": turned})
    assert float(outputs["accuracy"]) == pytest.approx(sum(accuracies) / 2)
