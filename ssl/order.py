"""In which order did the segments happen?"""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fusion.backbone import Encoded
from ..shards.errors import RequestError, choice_error
from .pretext import PretextTask, source_feature, zero_loss


class ClipOrder(PretextTask):
    """Clip order prediction (VCOP, Xu et al. 2019): which of the K! permutations was applied to the segments?

    Segments are encoded alone, so shuffling features equals shuffling input clips. Every pair of shuffled features
    goes through `Linear(2D, hidden) ReLU`, the pairs are joined, and a linear layer names the permutation, numbered
    as in `itertools.permutations`. Permutations are dealt out evenly over the clips that count. `streams`: what it is
    asked of, `fused` or modalities. Defaults: K 3 and dropout 0.5 as published; hidden 128 (published: 512).

    Shortcut it guards against: continuous borders and a common crop (gaps between segments and augmentation per
    segment); it is scored on clips whose segments are all present.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        streams: Sequence[str] = ("fused",),
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if segments < 2:
            raise RequestError(f"task 'clip_order' needs data.segments of at least 2, not {segments}")
        for name in streams:
            if name != "fused" and name not in modalities:
                raise choice_error("feature for task clip_order", name, ["fused", *modalities])
        self.streams = list(streams)
        self.orders = torch.tensor(list(permutations(range(segments))))
        self.chance = 1 / len(self.orders)
        pairs = len(list(combinations(range(segments), 2)))
        self.relations = nn.ModuleDict({name: nn.Linear(2 * width, hidden) for name in self.streams})
        self.classifiers = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Dropout(dropout), nn.Linear(pairs * hidden, len(self.orders)))
                for name in self.streams
            }
        )

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        losses, correct, idle = [], [], []
        for name in self.streams:
            feature, present = source_feature(encoded["plain"], name)
            # Absent segments first: the permutations are to be dealt evenly over the clips that count.
            feature = feature[present.all(dim=1)]
            target = deal_evenly(len(feature), len(self.orders), generator).to(feature.device)
            logits = self.predict(name, shuffle_segments(feature, self.orders.to(feature.device)[target]))
            idle.append(logits)
            if len(target):
                losses.append(F.cross_entropy(logits, target))
                correct.append((logits.argmax(-1) == target).float().mean())
        if not losses:
            return {"loss": zero_loss(*idle)}
        return {"loss": torch.stack(losses).mean() + zero_loss(*idle), "accuracy": torch.stack(correct).mean()}

    def predict(self, name: str, shuffled: Tensor) -> Tensor:
        """Logits (B, K!) for features (B, K, D) in shuffled order."""
        pairs = combinations(range(shuffled.shape[1]), 2)
        joined = [torch.cat([shuffled[:, i], shuffled[:, j]], dim=-1) for i, j in pairs]
        related = [F.relu(self.relations[name](pair)) for pair in joined]
        return self.classifiers[name](torch.cat(related, dim=-1))


def shuffle_segments(feature: Tensor, orders: Tensor) -> Tensor:
    """Feature (B, K, D) with row k taken from segment `orders[b, k]`."""
    return feature.gather(1, orders[..., None].expand_as(feature))


def deal_evenly(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Class numbers (count,) in random order, each class as often as any other, up to one."""
    offset = int(torch.randint(0, classes, (), generator=generator))
    numbers = (torch.arange(count) + offset) % classes
    return numbers[torch.randperm(count, generator=generator)]
