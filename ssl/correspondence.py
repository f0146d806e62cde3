"""Do two streams come from one clip?"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fusion.backbone import Encoded
from .pretext import PretextTask, modality_pairs, projection_head, unit, zero_loss


class Correspondence(PretextTask):
    """Audio-visual correspondence for any pair of modalities (Arandjelovic & Zisserman 2017), through a distance.

    For each pair, two towers map features to unit vectors (AVE-Net, 2018); `logit = scale * cos + bias`, binary
    cross-entropy. Positive: the same segment of one clip. Negative: the segment with the same number in another
    clip of the batch, so that neither the code path nor the place in the clip tells them apart; one negative for
    every positive, so chance is one half in every batch. Rows whose negative lacks the modality are left out with
    their positive. Defaults: 128-d towers with 256 hidden, scale 10, bias 0, both learned.

    Shortcut it guards against: encoding marks of the file (same sampling for both sides) and silence (`present`).
    """

    chance = 0.5

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs(modalities, pairs)
        used = sorted({name for pair in self.pairs for name in pair})
        self.towers = nn.ModuleDict({name: projection_head(width, hidden, dimension) for name in used})
        self.log_scale = nn.Parameter(torch.full((len(self.pairs),), math.log(10.0)))
        self.bias = nn.Parameter(torch.zeros(len(self.pairs)))

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded["plain"]
        towers = {name: unit(tower(plain.features[name])) for name, tower in self.towers.items()}
        clips = len(next(iter(towers.values())))
        # A cyclic shift gives every clip one partner that is not itself, and every clip serves once.
        shift = int(torch.randint(1, clips, (), generator=generator)) if clips > 1 else 0
        losses, correct = [], []
        for number, (first, second) in enumerate(self.pairs):
            logits, targets = corresponding_logits(
                towers[first], towers[second], plain.present[first], plain.present[second], shift
            )
            logits = logits * self.log_scale[number].exp() + self.bias[number]
            if len(targets) and shift:
                losses.append(F.binary_cross_entropy_with_logits(logits, targets))
                correct.append(((logits > 0) == (targets > 0.5)).float().mean())
        if not losses:
            return {"loss": zero_loss(*towers.values(), self.log_scale, self.bias)}
        idle = zero_loss(*towers.values(), self.log_scale, self.bias)
        return {"loss": torch.stack(losses).mean() + idle, "accuracy": torch.stack(correct).mean()}


def corresponding_logits(
    first: Tensor, second: Tensor, first_present: Tensor, second_present: Tensor, shift: int
) -> tuple[Tensor, Tensor]:
    """Cosines and targets (2N,) of N positives and, in the same order, their N negatives.

    `first`, `second` (B, K, D) unit vectors; the negative of clip b is `second` of clip b + shift, same segment.
    """
    other, other_present = second.roll(-shift, 0), second_present.roll(-shift, 0)
    mask = first_present & second_present & other_present
    cosines = torch.cat([(first * second).sum(-1)[mask], (first * other).sum(-1)[mask]])
    positives = int(mask.sum())
    targets = torch.cat([cosines.new_ones(positives), cosines.new_zeros(positives)])
    return cosines, targets
