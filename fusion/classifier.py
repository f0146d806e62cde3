"""A backbone with a classifier on its fused embedding, and optional heads on each modality."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backbone import Backbone, Encoded


@dataclass
class Scored:
    """`logits` (B, K, C) of the fused embedding; `unimodal` logits by modality where such heads exist; `encoded`."""

    logits: Tensor
    unimodal: dict[str, Tensor]
    encoded: Encoded


class Classifier(nn.Module):
    """Backbone, dropout and a linear layer per `classes`; `unimodal` adds one linear head per modality."""

    def __init__(
        self, backbone: Backbone, classes: Sequence[str], dropout: float = 0.0, unimodal: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = tuple(classes)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.spec.width, len(self.classes)))
        self.unimodal = nn.ModuleDict(
            {name: nn.Linear(backbone.spec.width, len(self.classes)) for name in backbone.modalities if unimodal}
        )

    def forward(self, streams: dict[str, Tensor], present: dict[str, Tensor], start: Tensor) -> Scored:
        encoded = self.backbone(streams, present, start)
        unimodal = {name: head(encoded.features[name]) for name, head in self.unimodal.items()}
        return Scored(self.head(encoded.embedding), unimodal, encoded)


def view_probabilities(logits: Tensor) -> Tensor:
    """Class probabilities (B, C) of a clip: the mean of softmax over its K views, logits (B, K, C)."""
    return torch.softmax(logits.float(), dim=-1).mean(dim=1)
