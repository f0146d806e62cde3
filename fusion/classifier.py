"""A backbone with a classifier on the fused embedding, and optionally a head per modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..shards.batch import Batch
from ..shards.errors import RequestError, choice_error
from .backbone import Backbone, Encoded
from .mechanisms_by_name import build_fusion, fusion_class, fusions_at


@dataclass
class Scored:
    """Class scores of B clips with K segments and C classes.

    logits: (B, K, C), from the fused embedding or from the decision.
    unimodal: (B, K, C) by modality, from the heads per modality; empty without such heads.
    encoded: output of the backbone.
    """

    logits: Tensor
    unimodal: dict[str, Tensor]
    encoded: Encoded


class Classifier(nn.Module):
    """A backbone, dropout and a linear layer with one output per class.

    backbone: encodes and fuses the segments.
    classes: names, in the order of the logits.
    dropout: probability of dropping a channel before the linear layer.
    unimodal: adds one linear head per modality.
    decision: name of a mechanism that joins class scores, such as `mean`. The logits are then the joined scores of
        the heads per modality. The fused embedding is not used, and weights and auxiliary loss of `Scored.encoded`
        are those of the decision.
    multilabel: a clip may have several classes, or none. Each class gets a separate probability.
    decision_arguments: further arguments of the decision. A bundle does not store them: `save_bundle` refuses them.

    `forward` takes the arguments of `Backbone.forward` and returns `Scored`.

    Raises `RequestError` for a `decision` that does not join class scores, and for `decision` with `multilabel`.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        dropout: float = 0.0,
        unimodal: bool = False,
        decision: str | None = None,
        multilabel: bool = False,
        decision_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = tuple(classes)
        self.multilabel = multilabel
        width, count = backbone.width, len(self.classes)
        if decision is not None and fusion_class(decision).level != "decision":
            raise choice_error("decision", decision, fusions_at("decision"))
        if decision is not None and multilabel:
            raise RequestError(f"decision '{decision}' needs classes that exclude each other: give no decision")
        self.decision_name = decision
        self.decision_arguments = dict(decision_arguments or {})
        self.decision = (
            build_fusion(decision, backbone.modalities, count, self.decision_arguments) if decision else None
        )
        measures = self.decision.quality if self.decision else 0
        backbone.quality_measures = max(backbone.quality_measures, measures)
        # With a decision there is no linear layer: a layer without a gradient would block the other ranks.
        self.head = nn.Identity() if decision else nn.Sequential(nn.Dropout(dropout), nn.Linear(width, count))
        self.unimodal = nn.ModuleDict(
            {name: nn.Linear(width, count) for name in backbone.modalities if unimodal or decision}
        )

    def forward(
        self,
        streams: dict[str, Tensor] | Batch,
        present: dict[str, Tensor] | None = None,
        start: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Scored:
        return self.score(self.backbone(streams, present, start, quality))

    def score(self, encoded: Encoded) -> Scored:
        """Scores a batch that is already encoded."""
        unimodal = {name: head(encoded.features[name]) for name, head in self.unimodal.items()}
        if self.decision is None:
            return Scored(self.head(encoded.embedding), unimodal, encoded)
        columns = self.decision.quality
        measured = None if encoded.quality is None else encoded.quality[..., :columns]
        fused = self.decision(unimodal, encoded.present, *((measured,) if columns else ()))
        joined = replace(encoded, weights=fused.weights, aux_loss=fused.aux_loss, auxiliary=fused.auxiliary)
        return Scored(fused.embedding, unimodal, joined)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (..., C) from logits (..., C): softmax, or sigmoid if multilabel."""
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def view_probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (B, C) of clips from logits (B, K, C): the mean over the K views."""
        return self.probabilities(logits.float()).mean(dim=1)
