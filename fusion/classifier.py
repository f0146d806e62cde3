"""A backbone with a classifier on its fused embedding, and optional heads on each modality."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..shards.batch import Batch
from ..shards.errors import RequestError, choice_error
from .backbone import Backbone, Encoded
from .mechanisms_by_name import build_fusion, fusion_class, fusions_at


@dataclass
class Scored:
    """Class scores.

    logits: (B, K, C) of the fused embedding, or of the decision.
    unimodal: (B, K, C) by modality, if such heads exist.
    encoded: what the backbone returned.
    """

    logits: Tensor
    unimodal: dict[str, Tensor]
    encoded: Encoded


class Classifier(nn.Module):
    """A backbone, dropout and a linear layer with one output per class.

    backbone: encodes and fuses the segments.
    classes: names, in the order of the logits.
    dropout: before the linear layer.
    unimodal: adds one linear head per modality.
    decision: a mechanism that joins class scores (see `fusions_at`). The logits are then the joined scores of the
        heads per modality, the fused embedding is not used, and `Scored.encoded.weights` are the decision's.
    multilabel: a clip may have several classes, or none; each has its own probability.

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
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = tuple(classes)
        self.multilabel = multilabel
        width, count = backbone.width, len(self.classes)
        if decision is not None and fusion_class(decision).level != "decision":
            raise choice_error("decision", decision, fusions_at("decision"))
        if decision is not None and multilabel:
            raise RequestError(f"decision '{decision}' joins scores of classes that exclude each other: leave it out")
        self.decision_name = decision
        self.decision = build_fusion(decision, backbone.modalities, count, {}) if decision else None
        # A layer without a gradient would stop all ranks but the first.
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
        """Scores a batch that the backbone has encoded."""
        unimodal = {name: head(encoded.features[name]) for name, head in self.unimodal.items()}
        if self.decision is None:
            return Scored(self.head(encoded.embedding), unimodal, encoded)
        fused = self.decision(unimodal, encoded.present)
        return Scored(fused.embedding, unimodal, replace(encoded, weights=fused.weights))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (..., C) of logits (..., C): softmax, or sigmoid if multilabel."""
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def view_probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (B, C) of clips: the mean over the K views of logits (B, K, C)."""
        return self.probabilities(logits.float()).mean(dim=1)
