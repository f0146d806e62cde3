"""Weights of heads by how much they generalise against how much they overfit."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Losses:
    """One head's loss on training clips and on held-out ones."""

    train: float
    validation: float


def blend_weights(before: Mapping[str, Losses], after: Mapping[str, Losses], floor: float = 0.01) -> dict[str, float]:
    """Gradient blending (Wang et al. 2020): `w_k ~ G_k / O_k^2`, which sum to one, for heads and the joint one.

    G: how far the held-out loss fell between two moments; O: how far the gap between held-out and training loss grew.
    O is kept above `floor` nats, and G above zero: a head that overfits not at all would else take all the weight,
    whatever it learned. Heads that learned nothing anywhere share the weight equally.
    """
    ratios = {}
    for name, start in before.items():
        end = after[name]
        gain = max(start.validation - end.validation, 0.0)
        growth = (end.validation - end.train) - (start.validation - start.train)
        ratios[name] = gain / max(growth, floor) ** 2
    total = sum(ratios.values())
    return {name: ratio / total if total else 1 / len(ratios) for name, ratio in ratios.items()}
