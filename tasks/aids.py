"""Remedies for modalities that compete while they are trained together, as plain data."""

from dataclasses import dataclass, field
from typing import Any


def _at_least_zero(high: float | None = None) -> Any:
    return field(default=0.0, metadata={"range": (0, high)})


@dataclass
class AidsConfig:
    """Zero switches a remedy off.

    `modulation`: alpha of OGM-GE, which holds back the stream that leads, in the first half of training, and needs
    heads per modality (`unimodal_weight`); published values .1 to 1. `gate_warmup`: share of the steps in which the
    gate stays where it started. `rank`: weight of the loss that ties a modality's confidence to the history of a
    sample's losses, for the decision `energy`; published value .1. `blending`: share of the steps in which each
    modality alone, and all together, are trained beforehand on four fifths of the clips, to weigh their heads by
    gradient blending; needs heads per modality; published value about .2 to .5.
    """

    modulation: float = _at_least_zero()
    gate_warmup: float = _at_least_zero(1)
    rank: float = _at_least_zero()
    blending: float = _at_least_zero(1)
