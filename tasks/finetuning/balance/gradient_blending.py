"""Gradient blending: loss weights of heads by generalisation and overfitting."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Losses:
    """Losses of one head."""

    train: float
    """Loss on training clips."""
    validation: float
    """Loss on held-out clips."""


def blend_weights(before: Mapping[str, Losses], after: Mapping[str, Losses], floor: float = 0.01) -> dict[str, float]:
    """Returns loss weights `w_k ~ G_k / O_k^2` that sum to one, by head (gradient blending, Wang et al. 2020).

    - G: decrease of the held-out loss between `before` and `after`, at least zero.
    - O: increase of the gap between held-out and training loss, at least `floor` nats. Without the floor, a head that
      does not overfit would get all the weight, regardless of what it learned.

    If no head improved, all weights are equal.

    >>> before = {"rgb": Losses(1.0, 1.0), "audio": Losses(1.0, 1.0)}
    >>> blend_weights(before, {"rgb": Losses(0.5, 0.6), "audio": Losses(0.5, 1.0)})
    {'rgb': 1.0, 'audio': 0.0}
    """
    ratios = {}
    for name, start in before.items():
        end = after[name]
        gain = max(start.validation - end.validation, 0.0)
        growth = (end.validation - end.train) - (start.validation - start.train)
        ratios[name] = gain / max(growth, floor) ** 2
    total = sum(ratios.values())
    return {name: ratio / total if total else 1 / len(ratios) for name, ratio in ratios.items()}
