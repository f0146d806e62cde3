"""Cluster assignments across modalities."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from lightly.loss.swav_loss import sinkhorn
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from .base import (
    FUSED,
    PLAIN,
    PretextTask,
    mean_accuracy,
    mean_of,
    modality_pairs,
    names_in,
    projection_heads,
    source_feature,
    unit,
)


class SwappedAssignments(PretextTask):
    """Swapped cluster assignments (SwAV, Caron et al. 2020) across modalities, similar to SeLaVi (Asano 2020).

    Embeddings z of each modality are compared with common prototypes c, all of length one. Codes
    `q = Sinkhorn(z . c / epsilon)` distribute the batch evenly over the clusters. Each modality predicts the code of
    the other, with the loss `-sum q_a log softmax(z_v . c / T)`, in both directions of every pair. Defaults: 32
    prototypes (fewer than the rows of a batch), T .1, epsilon .05, 3 iterations, heads hidden 256, 128-d. The
    accuracy is the share of rows whose most likely cluster is that of the other modality's code.

    Shortcut it guards against: one cluster for all clips (codes are distributed evenly).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        prototypes: int = 32,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs([*modalities, FUSED], pairs)
        self.heads = projection_heads(names_in(self.pairs), width, hidden, dimension)
        # No bias, unlike the prototypes in lightly: it could make a cluster likely for every embedding.
        self.prototypes = nn.Linear(dimension, prototypes, bias=False)
        self.chance = 1 / prototypes
        self.temperature, self.epsilon = temperature, epsilon

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        directions = unit(self.prototypes.weight)
        scores, present = {}, {}
        for name, head in self.heads.items():
            feature, present[name] = source_feature(plain, name)
            scores[name] = unit(head(feature)) @ directions.T
        losses, correct = [], []
        for first, second in self.pairs:
            mask = present[first] & present[second]
            if not bool(mask.any()):
                continue
            for query, key in ((first, second), (second, first)):
                with torch.no_grad():
                    codes = sinkhorn(_precise(scores[key][mask]), epsilon=self.epsilon)
                logits = scores[query][mask] / self.temperature
                losses.append(F.cross_entropy(logits, codes.to(logits.dtype)))
                correct.append((logits.argmax(-1) == codes.argmax(-1)).float().mean())
        return {"loss": mean_of(losses, *scores.values()), **mean_accuracy(correct)}


def _precise(scores: Tensor) -> Tensor:
    """Scores in at least single precision: exponentials overflow in half precision."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
