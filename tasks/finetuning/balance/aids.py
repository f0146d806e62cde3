"""Configuration of remedies for modalities that compete in joint training."""

from dataclasses import dataclass, field
from typing import Any


def _at_least_zero(high: float | None = None) -> Any:
    return field(default=0.0, metadata={"range": (0, high)})


def _share(default: float) -> Any:
    return field(default=default, metadata={"range": (0.01, 1)})


@dataclass
class AidsConfig:
    """Strengths of remedies for modalities that compete in training."""

    modulation: float = _at_least_zero()
    """Strength of OGM-GE, which slows the leading modality in the first half of training; needs `unimodal_weight`.
    Published: 0.1 to 1; 0: off."""
    pareto: float = _at_least_zero()
    """Factor on the gradients that MMPareto joins from the fused loss and from each modality's own head, so that
    neither is harmed; needs `unimodal_weight`. Published: 1.5; 0: off."""
    distillation: float = _at_least_zero()
    """Weight of the squared distance of each modality's features to those of its expert, trained alone (UMT). Only
    in a study's rows that train jointly; in `finetune`, `joint` does it. 0: off."""
    gate_warmup: float = _at_least_zero(1)
    """Share of the steps in which the gate keeps its first weights. 0: off."""
    rank: float = _at_least_zero()
    """Weight of the loss that ties a modality's confidence to a clip's past losses, for the decision `energy`.
    Published: 0.1; 0: off."""
    blending: float = _at_least_zero(1)
    """Share of the steps that train each modality alone first, to weigh the heads by gradient blending; needs
    `unimodal_weight`. Published: 0.2 to 0.5; 0: off."""
    alternation: float = _at_least_zero()
    """Damping of the gradient projection in MLA, which trains one modality per step through one shared head; needs a
    `decision` without trained weights, such as `entropy`. Published: 0.01 to 0.1; 0: off."""
    relearning: float = _at_least_zero()
    """Strength of Diagnosing & Re-learning, which moves encoders that overfit back towards their first weights;
    `finetune` needs `hold_out`. Published: 3; 0: off."""
    relearn_every: float = _share(0.4)
    """Share of the steps between two diagnoses of `relearning`. Published: 0.4."""
