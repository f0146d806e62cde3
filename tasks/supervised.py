"""Supervised training as an objective: action classes, violence as one of two, or several labels of one clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..fusion.classifier import Classifier, Scored
from ..shards.batch import Batch
from ..shards.errors import RequestError
from ..shards.transforms import AugmentConfig, ClipSpec, Preparation
from ..ssl.monitors import collapse_warnings, monitors
from .aids import AidsConfig
from .modulation import GateWarmup, GradientModulation
from .rank_loss import LossHistory


@dataclass
class StoredBatch(Batch):
    """A batch whose streams are stored features, with the `quality` (B, K, M, Q) measured when they were taken."""

    quality: Tensor | None = None

    def to(self, device: torch.device | str) -> "StoredBatch":
        moved = super().to(device)
        return StoredBatch(**vars(moved), quality=None if self.quality is None else self.quality.to(device))


class SupervisedObjective(nn.Module):
    """Cross-entropy of every segment's fused logits, plus, weighted, that of each present modality's own head.

    Of a multilabel classifier it is the mean of the classes' binary cross-entropies.

    The heads per modality count by their mean, times `unimodal_weight`; or, with `head_weights`, each by its own
    beside the fused one's, `joint`.

    `spec`: how to prepare the streams; none where they are stored features. `class_weights` (C,) balances unequal
    classes: weights of a clip's class or, multilabel, of what has the class. `aids` and the number of training
    `batches` they take shares of: see `AidsConfig`; `keys` of the training clips, for the one that remembers them.
    `forward(batch)` returns `label/loss`, `label/accuracy`, `unimodal/loss` where there are such heads, `rank/loss`
    where it is asked for, and what `monitors` watches.
    Raises `RequestError` where an aid needs what the classifier lacks.
    """

    batches_seen: Tensor

    def __init__(
        self,
        classifier: Classifier,
        spec: ClipSpec | None,
        augment: AugmentConfig | None,
        unimodal_weight: float = 0.0,
        class_weights: Sequence[float] | None = None,
        aids: AidsConfig | None = None,
        batches: int = 0,
        keys: Sequence[str] = (),
        head_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.preparation = None if spec is None else Preparation(spec)
        self.augment = augment
        self.aids = aids or AidsConfig()
        if classifier.multilabel and (self.aids.modulation or self.aids.rank):
            raise RequestError("aids.modulation and aids.rank ask for the one right class: multilabel has several")
        self.batches = batches
        self.head_weights = head_weights
        self.weights = {"label/loss": 1.0, "unimodal/loss": unimodal_weight}
        if head_weights is not None:
            self.weights = {"label/loss": head_weights["joint"], "unimodal/loss": 1.0}
        if self.aids.rank:
            self.weights["rank/loss"] = self.aids.rank
        self.register_buffer(
            "class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False
        )
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))
        self.modulation = self._modulation() if self.aids.modulation else None
        self.warmup = self._warmup() if self.aids.gate_warmup else None
        self.history = self._history(keys) if self.aids.rank else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        augment = self.augment if self.training else None
        streams = batch.streams if self.preparation is None else self.preparation(batch, augment)
        quality = batch.quality if isinstance(batch, StoredBatch) else None
        scored = self.classifier(streams, batch.present, batch.start, quality)
        assert batch.label is not None, "supervised training needs a stream with labels"
        label = batch.label[:, None].expand(-1, scored.logits.shape[1], *batch.label.shape[1:])
        guessed = scored.logits > 0 if self.classifier.multilabel else scored.logits.argmax(-1)
        outputs = {
            "label/loss": self._cross_entropy(scored.logits.flatten(0, 1), label.flatten(0, 1)),
            "label/accuracy": (guessed == label).float().mean(),
        }
        losses = []
        for name, logits in scored.unimodal.items():
            mask = scored.encoded.present[name]
            idle = logits.sum() * 0
            share = self.head_weights.get(name, 0.0) if self.head_weights else 1 / len(scored.unimodal)
            losses.append(share * self._cross_entropy(logits[mask], label[mask]) if bool(mask.any()) else idle)
        if losses:
            outputs["unimodal/loss"] = torch.stack(losses).sum()
        if self.training:
            outputs |= self._aid(scored, label, batch)
        outputs["gate/loss"] = scored.encoded.aux_loss
        return outputs | monitors(scored.encoded)

    def warnings(self, means: Mapping[str, float]) -> list[str]:
        """What the logged `means` warn of."""
        return collapse_warnings(means, self.classifier.backbone.width)

    def _aid(self, scored: Scored, label: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sets the aids for this batch's backward pass; the rank loss where it is asked for."""
        share = int(self.batches_seen) / max(self.batches, 1)
        self.batches_seen += 1
        if self.modulation is not None:
            # The published runs hold back during the first half of their epochs.
            self.modulation.active = share < 0.5
            self.modulation.measure(scored.unimodal, label, scored.encoded.present)
        if self.warmup is not None:
            self.warmup.holding = share < self.aids.gate_warmup
        if self.history is None:
            return {}
        confidence, losses, present = {}, {}, {}
        there = scored.encoded.present
        for name, logits in scored.unimodal.items():
            each = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view(label.shape)
            count = there[name].sum(dim=1).clamp_min(1)
            confidence[name] = (logits.logsumexp(dim=-1) / 10 * there[name]).sum(dim=1) / count
            losses[name] = (each * there[name]).sum(dim=1) / count
            present[name] = there[name].any(dim=1)
        return {"rank/loss": self.history(batch.key, confidence, losses, present)}

    def _modulation(self) -> GradientModulation:
        if not self.classifier.unimodal:
            raise RequestError("aids.modulation compares heads per modality: give unimodal_weight above 0")
        backbone = self.classifier.backbone
        streams = {
            name: [*backbone.encoders[name].parameters(), *backbone.projections[name].parameters()]
            for name in backbone.modalities
        }
        return GradientModulation(streams, self.aids.modulation)

    def _warmup(self) -> GateWarmup:
        gate = self.classifier.backbone.fusion.gate_parameters()
        if not gate:
            name = self.classifier.backbone.spec.fusion
            raise RequestError(f"aids.gate_warmup: fusion '{name}' has no gate to hold")
        return GateWarmup(gate)

    def _history(self, keys: Sequence[str]) -> LossHistory:
        if self.classifier.decision_name != "energy":
            raise RequestError("aids.rank trains the confidence of decision 'energy': give that, or rank 0")
        return LossHistory(list(keys), self.classifier.backbone.modalities)

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        weights = self.class_weights if isinstance(self.class_weights, Tensor) else None
        if self.classifier.multilabel:
            return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), pos_weight=weights)
        return F.cross_entropy(logits, label, weight=weights)


def balanced_weights(labels: Sequence[int], classes: int) -> list[float]:
    """Class weights inverse to frequency, with mean one over the samples."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return (len(labels) / (int((counts > 0).sum()) * counts.clamp_min(1))).tolist()


def positive_weights(truth: NDArray[np.int64]) -> list[float]:
    """Weights (C,) of what has a class, truth (n, C), such that what has it and what has not weigh the same."""
    counts = truth.sum(axis=0)
    return ((len(truth) - counts) / np.maximum(counts, 1)).clip(1e-3).tolist()
