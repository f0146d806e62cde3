"""The supervised objective for action classes, one class of two to detect, or several classes per clip."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...fusion.classifier import Classifier, Scored
from ...shards.batch import Batch
from ...shards.clip_spec import ClipSpec
from ...shards.errors import RequestError
from ...shards.transforms import AugmentConfig, Preparation
from ...ssl.gather import joined_gate_loss
from ...ssl.monitors import GRADIENT_EVERY, gate_gradient, monitors
from ...ssl.verdicts import FINE_TUNING, Means, collapse_warnings, gate_warnings, guessing_warnings
from .balance.aids import AidsConfig
from .balance.alternation import Alternation, share_head
from .balance.gradient_modulation import GateWarmup, GradientModulation
from .balance.pareto_gradients import ParetoGradients
from .rank_loss import LossHistory


@dataclass
class StoredBatch(Batch):
    """A batch of stored features instead of media."""

    quality: Tensor | None = None
    """Quality (B, K, M, Q) measured on the media, if the gate uses it."""

    def _each(self, change: Callable[[Tensor], Tensor]) -> "StoredBatch":
        changed = super()._each(change)
        return StoredBatch(**vars(changed), quality=None if self.quality is None else change(self.quality))


@dataclass(frozen=True)
class Guessing:
    """What the best constant prediction reaches."""

    loss: float
    """Its loss."""
    accuracy: float
    """Its accuracy."""


def guess(labels: NDArray[np.int64], classes: int, weights: Sequence[float] | None = None) -> Guessing:
    """Returns loss and accuracy of the best constant prediction for `labels`, with the class `weights` of the loss.

    For class numbers (n,) the loss is the entropy of the weighted class shares: log C if they are equal. For several
    classes per clip, 0 and 1 (n, C), both values are means over the binary decisions.
    """
    factor = np.ones(classes) if weights is None else np.asarray(weights, float)
    if labels.ndim == 2:
        share = labels.mean(axis=0)
        yes, no = factor * share, 1 - share
        loss = float(np.mean(-_times_log(yes, yes / (yes + no)) - _times_log(no, no / (yes + no))))
        return Guessing(loss, float(np.maximum(share, no).mean()))
    counts = np.bincount(labels, minlength=classes)
    share = factor * counts / (factor * counts).sum()
    return Guessing(float(-_times_log(share, share).sum()), float(counts.max() / counts.sum()))


def _times_log(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns `first log second`, and 0 where `first` is 0."""
    return first * np.log(np.where(first > 0, second, 1.0))


class SupervisedObjective(nn.Module):
    """Cross-entropy of the fused logits of every segment, plus the weighted loss of the heads per modality.

    With a multilabel classifier it is the mean binary cross-entropy over classes. The heads per modality contribute
    their mean loss, times `unimodal_weight`. With `head_weights`, each head has a weight, and the fused one has
    `joint`.

    - `spec`: how to prepare the streams. None for stored features.
    - `class_weights` (C,): weights of the classes. Multilabel: weights of the positive decisions.
    - `aids`: see `AidsConfig`.
    - `batches`: number of training batches. The aids use shares of it.
    - `accumulate`: batches of a step. `aids.alternation` trains one modality in all of them.
    - `keys`: keys of the training clips, for the ranking loss.
    - `guessing`: what a constant prediction reaches, see `guess`.
    - `teachers`: frozen classifiers of one modality each, for `aids.distillation` (UMT, Du et al. 2023). The loss
      `||h_m - h_m^teacher||^2` is averaged over rows and summed over modalities.

    `forward(batch)` returns:

    - `label/loss` and `label/accuracy`;
    - `label/guessing` and `label/chance` with `guessing`;
    - `unimodal/loss` with heads per modality;
    - `rank/loss` with the ranking loss, `distillation/loss` with teachers;
    - `fusion/gradient` every `GRADIENT_EVERY` batches: the norm of the gradient of the gate's parameters;
    - `gate/loss`, and the values of `monitors`.

    In training with `aids.alternation`, `forward` encodes one modality and returns its loss and accuracy on the clips
    that have it, as `label/loss`, `alternation/NAME` and `label/accuracy`.

    Raises `RequestError` if an aid does not suit the classifier.
    """

    batches_seen: Tensor
    teachers: Mapping[str, Classifier]

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
        guessing: Guessing | None = None,
        teachers: Mapping[str, Classifier] | None = None,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        # Not a submodule: teachers are neither trained nor saved.
        self.__dict__["teachers"] = teachers or {}
        self.guessing = guessing
        self.classifier = classifier
        self.preparation = None if spec is None else Preparation(spec)
        self.augment = augment
        self.aids = aids or AidsConfig()
        if classifier.multilabel and (self.aids.modulation or self.aids.rank):
            raise RequestError(
                "aids.modulation and aids.rank need a single class per clip: set both to 0 for multilabel"
            )
        self.batches, self.accumulate = batches, accumulate
        self.head_weights = head_weights
        self.weights = {"label/loss": 1.0, "unimodal/loss": unimodal_weight}
        if head_weights is not None:
            self.weights = {"label/loss": head_weights["joint"], "unimodal/loss": 1.0}
        if self.aids.rank:
            self.weights["rank/loss"] = self.aids.rank
        if self.aids.distillation:
            if not teachers:
                raise RequestError(
                    "aids.distillation needs an expert of each modality: use it in a study, in a row with joint=true"
                )
            self.weights["distillation/loss"] = self.aids.distillation
        self.register_buffer(
            "class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False
        )
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))
        self.modulation = (
            GradientModulation(self._streams("aids.modulation"), self.aids.modulation)
            if self.aids.modulation
            else None
        )
        self.pareto = ParetoGradients(self._streams("aids.pareto"), self.aids.pareto) if self.aids.pareto else None
        self.warmup = self._warmup() if self.aids.gate_warmup else None
        self.history = self._history(keys) if self.aids.rank else None
        self.alternation = share_head(classifier, self.aids) if self.aids.alternation else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        augment = self.augment if self.training else None
        streams = batch.streams if self.preparation is None else self.preparation(batch, augment)
        if self.training and self.alternation is not None:
            return self._one_modality(self.alternation, streams, batch)
        quality = batch.quality if isinstance(batch, StoredBatch) else None
        scored = self.classifier(streams, batch.present, batch.start, quality)
        assert batch.label is not None, "supervised training needs a stream with labels"
        label = batch.label[:, None].expand(-1, scored.logits.shape[1], *batch.label.shape[1:])
        guessed = scored.logits > 0 if self.classifier.multilabel else scored.logits.argmax(-1)
        outputs = {
            "label/loss": self._cross_entropy(scored.logits.flatten(0, 1), label.flatten(0, 1)),
            "label/accuracy": (guessed == label).float().mean(),
        }
        outputs |= self._guessed(scored.logits)
        losses: dict[str, Tensor] = {}
        for name, logits in scored.unimodal.items():
            mask = scored.encoded.present[name]
            idle = logits.sum() * 0
            share = self.head_weights.get(name, 0.0) if self.head_weights else 1 / len(scored.unimodal)
            losses[name] = share * self._cross_entropy(logits[mask], label[mask]) if bool(mask.any()) else idle
        if losses:
            outputs["unimodal/loss"] = torch.stack(list(losses.values())).sum()
        if self.teachers and self.aids.distillation:
            outputs["distillation/loss"] = self._distillation(streams, scored)
        if self.training:
            outputs |= self._measured(outputs, scored)
            if self.pareto is not None and torch.is_grad_enabled():
                weights = self.weights
                own = {name: weights["unimodal/loss"] * loss for name, loss in losses.items()}
                self.pareto.measure(weights["label/loss"] * outputs["label/loss"], own)
            outputs |= self._aid(scored, label, batch)
        outputs["gate/loss"] = joined_gate_loss([scored.encoded])
        return outputs | monitors(scored.encoded)

    def warnings(self, means: Mapping[str, float]) -> list[str]:
        """Returns warnings about the logged `means`."""
        return collapse_warnings(means, self.classifier.backbone.width, FINE_TUNING)

    def verdict(self, lines: Sequence[Means]) -> list[str]:
        """Returns warnings about all logged `lines` at the end of a run."""
        return [*guessing_warnings(lines), *gate_warnings(lines, FINE_TUNING)]

    def _one_modality(
        self, alternation: Alternation, streams: Mapping[str, Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        """The loss of the modality whose turn it is. The other encoders get no gradient, so they do not move."""
        if int(self.batches_seen) % self.accumulate == 0:
            alternation.begin(batch.present)
        self.batches_seen += 1
        name = alternation.name
        mask = batch.present.get(name, torch.zeros_like(batch.start, dtype=torch.bool))
        features = self.classifier.backbone.encode(name, streams.get(name), mask).features
        alternation.see(features[mask])
        logits = self.classifier.unimodal[name](features)
        assert batch.label is not None, "supervised training needs a stream with labels"
        label = batch.label[:, None].expand(mask.shape)[mask]
        loss = self._cross_entropy(logits[mask], label) if len(label) else logits.sum() * 0
        outputs = {"label/loss": loss, f"alternation/{name}": loss.detach()}
        if len(label):
            outputs["label/accuracy"] = (logits[mask].argmax(-1) == label).float().mean()
        return outputs | self._guessed(logits)

    def _guessed(self, logits: Tensor) -> dict[str, Tensor]:
        if self.guessing is None:
            return {}
        values = {"label/guessing": self.guessing.loss, "label/chance": self.guessing.accuracy}
        return {name: logits.new_tensor(value, dtype=torch.float32) for name, value in values.items()}

    def _measured(self, outputs: dict[str, Tensor], scored: Scored) -> dict[str, Tensor]:
        """Returns the gradient norm of the gate, every `GRADIENT_EVERY` batches.

        The gate is that of the decision, if the classifier has one. None is trained if the fused loss has weight 0:
        then the gate is fitted afterwards.
        """
        if int(self.batches_seen) % GRADIENT_EVERY or not self.weights["label/loss"]:
            return {}
        losses = [self.weights.get(name, 1.0) * value for name, value in outputs.items() if name.endswith("/loss")]
        classifier, total = self.classifier, torch.stack(losses).sum()
        if classifier.decision is not None:
            gradient = gate_gradient(total, classifier.decision, scored.logits)
        else:
            gradient = gate_gradient(total, classifier.backbone.fusion, scored.encoded.embedding)
        return {} if gradient is None else {"fusion/gradient": gradient}

    def _aid(self, scored: Scored, label: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sets up the aids for the next backward pass. Returns the ranking loss if it is enabled."""
        share = int(self.batches_seen) / max(self.batches, 1)
        self.batches_seen += 1
        if self.modulation is not None:
            # The published method modulates during the first half of training.
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

    def _streams(self, aid: str) -> dict[str, list[nn.Parameter]]:
        """The parameters of each modality's encoder. Raises `RequestError` without heads per modality."""
        if not self.classifier.unimodal:
            raise RequestError(f"{aid} compares heads per modality: set unimodal_weight above 0")
        backbone = self.classifier.backbone
        return {
            name: [*backbone.encoders[name].parameters(), *backbone.projections[name].parameters()]
            for name in backbone.modalities
        }

    def _warmup(self) -> GateWarmup:
        gate = self.classifier.backbone.fusion.gate_parameters()
        if not gate:
            name = self.classifier.backbone.spec.fusion
            raise RequestError(f"aids.gate_warmup needs a gate, but fusion '{name}' has none: set it to 0")
        return GateWarmup(gate)

    def _distillation(self, streams: Mapping[str, Tensor], scored: Scored) -> Tensor:
        parts = []
        for name, teacher in self.teachers.items():
            mask, features = scored.encoded.present[name], scored.encoded.features[name]
            if name not in streams or not bool(mask.any()):
                continue
            with torch.no_grad():
                # Teachers are not part of the module, so they do not follow it to its device.
                wanted = teacher.to(features.device).eval().backbone.encode(name, streams[name], mask).features
            parts.append((features - wanted)[mask].square().sum(dim=-1).mean())
        return torch.stack(parts).sum() if parts else scored.logits.sum() * 0

    def _history(self, keys: Sequence[str]) -> LossHistory:
        if self.classifier.decision_name != "energy":
            raise RequestError(
                "aids.rank trains the confidence of decision 'energy': use that decision, or set aids.rank to 0"
            )
        return LossHistory(list(keys), self.classifier.backbone.modalities)

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        weights = self.class_weights if isinstance(self.class_weights, Tensor) else None
        if self.classifier.multilabel:
            return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), pos_weight=weights)
        return F.cross_entropy(logits, label, weight=weights)


def balanced_weights(labels: Sequence[int], classes: int) -> list[float]:
    """Returns class weights that are inverse to the class frequency, with a mean of one over the samples.

    >>> balanced_weights([0, 0, 0, 1], 2)
    [0.6666666865348816, 2.0]
    """
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return (len(labels) / (int((counts > 0).sum()) * counts.clamp_min(1))).tolist()


def positive_weights(truth: NDArray[np.int64]) -> list[float]:
    """Returns weights (C,) of the positive decisions that balance positive and negative clips of truth (n, C)."""
    counts = truth.sum(axis=0)
    return ((len(truth) - counts) / np.maximum(counts, 1)).clip(1e-3).tolist()
