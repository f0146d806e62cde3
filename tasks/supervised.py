"""Supervised training as an objective: action classes, or violence as one of two classes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fusion.classifier import Classifier
from ..shards.batch import Batch
from ..shards.transforms import AugmentConfig, ClipSpec, Preparation
from ..ssl.objective import monitors


class SupervisedObjective(nn.Module):
    """Cross-entropy of every segment's fused logits, plus, weighted, that of each present modality's own head.

    `class_weights` (C,) balances unequal classes. `forward(batch)` returns `label/loss`, `label/accuracy`,
    `unimodal/loss` where there are such heads, and the gate monitors.
    """

    def __init__(
        self,
        classifier: Classifier,
        spec: ClipSpec,
        augment: AugmentConfig | None,
        unimodal_weight: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.preparation = Preparation(spec)
        self.augment = augment
        self.weights = {"label/loss": 1.0, "unimodal/loss": unimodal_weight}
        self.register_buffer(
            "class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        streams = self.preparation(batch, self.augment if self.training else None)
        scored = self.classifier(streams, batch.present, batch.start)
        assert batch.label is not None, "supervised training needs a stream with labels"
        label = batch.label[:, None].expand(scored.logits.shape[:2])
        outputs = {
            "label/loss": self._cross_entropy(scored.logits.flatten(0, 1), label.flatten()),
            "label/accuracy": (scored.logits.argmax(-1) == label).float().mean(),
        }
        losses = []
        for name, logits in scored.unimodal.items():
            mask = batch.present[name]
            idle = logits.sum() * 0
            losses.append(self._cross_entropy(logits[mask], label[mask]) if bool(mask.any()) else idle)
        if losses:
            outputs["unimodal/loss"] = torch.stack(losses).mean()
        outputs["gate/loss"] = scored.encoded.aux_loss
        return outputs | monitors(scored.encoded)

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        weights = self.class_weights
        return F.cross_entropy(logits, label, weight=weights if isinstance(weights, Tensor) else None)


def balanced_weights(labels: Sequence[int], classes: int) -> list[float]:
    """Class weights inverse to frequency, with mean one over the samples."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return (len(labels) / (int((counts > 0).sum()) * counts.clamp_min(1))).tolist()
