"""A backbone with a classifier on its fused embedding, and optional heads on each modality."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..shards.errors import choice_error
from .backbone import Backbone, Encoded
from .registry import build_fusion, fusions_at


@dataclass
class Scored:
    """`logits` (B, K, C) of the fused embedding; `unimodal` logits by modality where such heads exist; `encoded`."""

    logits: Tensor
    unimodal: dict[str, Tensor]
    encoded: Encoded


class Classifier(nn.Module):
    """Backbone, dropout and a linear layer per `classes`; `unimodal` adds one linear head per modality.

    With `decision`, a mechanism that joins scores (`mean`, `product`, `entropy`, `energy`, `evidential`), the logits
    are those of the heads per modality joined by it, and the fused embedding has no part in them; the weights in
    `Scored.encoded` are the decision's then. Raises `RequestError` for a mechanism that joins something else.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        dropout: float = 0.0,
        unimodal: bool = False,
        decision: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = tuple(classes)
        width, count = backbone.width, len(self.classes)
        if decision is not None and decision not in fusions_at("decision"):
            raise choice_error("decision", decision, fusions_at("decision"))
        self.decision_name = decision
        self.decision = build_fusion(decision, backbone.modalities, count, {}) if decision else None
        # A layer that no loss reaches would stop every rank but the first.
        self.head = nn.Identity() if decision else nn.Sequential(nn.Dropout(dropout), nn.Linear(width, count))
        self.unimodal = nn.ModuleDict(
            {name: nn.Linear(width, count) for name in backbone.modalities if unimodal or decision}
        )

    def forward(
        self,
        streams: dict[str, Tensor],
        present: dict[str, Tensor],
        start: Tensor,
        quality: Tensor | None = None,
    ) -> Scored:
        return self.score(self.backbone(streams, present, start, quality))

    def score(self, encoded: Encoded) -> Scored:
        """The classifier's answer to what its backbone made of a batch."""
        unimodal = {name: head(encoded.features[name]) for name, head in self.unimodal.items()}
        if self.decision is None:
            return Scored(self.head(encoded.embedding), unimodal, encoded)
        fused = self.decision(unimodal, encoded.present)
        return Scored(fused.embedding, unimodal, replace(encoded, weights=fused.weights))


def view_probabilities(logits: Tensor) -> Tensor:
    """Class probabilities (B, C) of a clip: the mean of softmax over its K views, logits (B, K, C)."""
    return torch.softmax(logits.float(), dim=-1).mean(dim=1)
