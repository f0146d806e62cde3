"""What every pretext task is, and the pieces they share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn

from ..fusion.backbone import Encoded
from ..shards.errors import RequestError, choice_error


class PretextTask(nn.Module):
    """A task over segments that were encoded once.

    `views`: the names of the input views it reads (`plain` is the clip as it is; see `VIEWS` in `objective.py`).
    `forward(encoded, generator)` takes one `Encoded` per view and the batch's own generator for its draws, and
    returns `loss`, and the task's `accuracy` where it has one; `chance` is what guessing would reach.
    """

    views: tuple[str, ...] = ("plain",)
    chance: float | None = None

    @abstractmethod
    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        """The task's loss and accuracy on one batch."""


def projection_head(width: int, hidden: int, out: int) -> nn.Module:
    """Two layers, no batch norm: rows differ in number from batch to batch where modalities are missing."""
    return ProjectionHead([(width, hidden, None, nn.GELU()), (hidden, out, None, None)])


def unit(rows: Tensor) -> Tensor:
    """Rows scaled to length one along the last dimension."""
    return F.normalize(rows, dim=-1)


def modality_pairs(modalities: Sequence[str], pairs: Sequence[Sequence[str]] | None) -> list[tuple[str, str]]:
    """All unordered pairs of modalities, or just `pairs`.

    Raises `RequestError` for an unknown modality, naming the nearest, and for what is no pair of two.
    """
    for pair in pairs or ():
        for name in pair:
            if name not in modalities:
                raise choice_error("modality in a task's pairs", name, modalities)
        if len(pair) != 2 or pair[0] == pair[1]:
            raise RequestError(f"a task's pair names two different modalities, not {list(pair)}")
    return [(pair[0], pair[1]) for pair in pairs] if pairs else list(combinations(modalities, 2))


def source_feature(encoded: Encoded, source: str) -> tuple[Tensor, Tensor]:
    """Feature (B, K, D) and presence (B, K) of one modality, or of the `fused` embedding."""
    if source == "fused":
        return encoded.embedding, torch.stack(list(encoded.present.values())).any(dim=0)
    return encoded.features[source], encoded.present[source]


def zero_loss(*tensors: Tensor) -> Tensor:
    """Zero that still reaches every given tensor's graph: no valid row, but gradients for all ranks."""
    return sum((tensor.sum() * 0 for tensor in tensors), start=tensors[0].new_zeros(()))
