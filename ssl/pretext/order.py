"""Tasks on the order of segments."""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ...shards.errors import RequestError
from ..views.views import deal_evenly
from .base import FUSED, PLAIN, PretextTask, check_source, mean_accuracy, mean_of, source_feature


class OrderTask(PretextTask):
    """Base of tasks on shuffled segments: a classifier on all pairs of features of a sequence.

    Segments are encoded independently, so shuffling features is equivalent to shuffling the input. Each pair passes
    through `Linear(2D, hidden)` and ReLU. A linear layer on the concatenated pairs predicts the class. `streams`:
    `fused` or modalities. Only clips with all segments present are used.
    """

    across_clips = False
    orders_segments = True
    alone = True

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        length: int,
        classes: int,
        streams: Sequence[str],
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        for name in streams:
            check_source(name, [FUSED, *modalities])
        self.streams = list(streams)
        self.chance = 1 / classes
        pairs = len(list(combinations(range(length), 2)))
        self.relations = nn.ModuleDict({name: nn.Linear(2 * width, hidden) for name in self.streams})
        self.classifiers = nn.ModuleDict(
            {name: nn.Sequential(nn.Dropout(dropout), nn.Linear(pairs * hidden, classes)) for name in self.streams}
        )

    def predict(self, name: str, shuffled: Tensor) -> Tensor:
        """Logits (B, C) for features (B, L, D) in shuffled order."""
        pairs = combinations(range(shuffled.shape[1]), 2)
        joined = [torch.cat([shuffled[:, i], shuffled[:, j]], dim=-1) for i, j in pairs]
        related = [F.relu(self.relations[name](pair)) for pair in joined]
        return self.classifiers[name](torch.cat(related, dim=-1))

    def whole(self, plain: Encoded, name: str) -> Tensor:
        """Features (B', K, D) of the clips with all segments present."""
        feature, present = source_feature(plain, name)
        return feature[present.all(dim=1)]

    def judge(self, found: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Cross-entropy and accuracy, mean over streams. `found`: (logits, targets) by stream."""
        losses = [F.cross_entropy(logits, target) for logits, target in found if len(target)]
        correct = [(logits.argmax(-1) == target).float().mean() for logits, target in found if len(target)]
        return {"loss": mean_of(losses, *(logits for logits, _ in found)), **mean_accuracy(correct)}


class ClipOrder(OrderTask):
    """Clip order prediction (VCOP, Xu et al. 2019): which of the K! permutations was applied to the segments?

    Classes are numbered as in `itertools.permutations` and equally frequent. Defaults: K 3 and dropout .5 as
    published; hidden 128 (published: 512).

    Shortcuts it guards against: continuity at borders (segments have gaps), and a common crop (augmentation is drawn
    per segment).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        streams: Sequence[str] = (FUSED,),
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        if segments < 2:
            raise RequestError(f"task 'clip_order' needs data.segments of at least 2, not {segments}")
        orders = list(permutations(range(segments)))
        super().__init__(modalities, width, segments, len(orders), streams, hidden, dropout)
        self.orders = torch.tensor(orders)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        found = []
        for name in self.streams:
            feature = self.whole(encoded[PLAIN], name)
            target = deal_evenly(len(feature), len(self.orders), generator).to(feature.device)
            orders = self.orders.to(feature.device)[target]
            found.append((self.predict(name, shuffle_segments(feature, orders)), target))
        return self.judge(found)


class OrderVerification(OrderTask):
    """Shuffle and learn (Misra et al. 2016): are the segments in order?

    Half of the clips keep their order. The others get a permutation that is neither the order nor its reverse,
    because motion without direction looks the same in reverse. The published form uses frames of high motion and
    75 % negatives; here both classes are equally frequent. Needs K of at least 3. Defaults: hidden 128, dropout .5.

    Shortcuts it guards against: those of `ClipOrder`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        streams: Sequence[str] = (FUSED,),
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        if segments < 3:
            raise RequestError(f"task 'order_verification' needs data.segments of at least 3, not {segments}")
        super().__init__(modalities, width, segments, 2, streams, hidden, dropout)
        straight = tuple(range(segments))
        wrong = [order for order in permutations(straight) if order not in (straight, straight[::-1])]
        self.straight, self.wrong = torch.tensor(straight), torch.tensor(wrong)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        found = []
        for name in self.streams:
            feature = self.whole(encoded[PLAIN], name)
            target = deal_evenly(len(feature), 2, generator)
            mixed = self.wrong[torch.randint(len(self.wrong), (len(feature),), generator=generator)]
            orders = torch.where(target[:, None] == 1, self.straight, mixed).to(feature.device)
            found.append((self.predict(name, shuffle_segments(feature, orders)), target.to(feature.device)))
        return self.judge(found)


class FrameOrder(OrderTask):
    """Order prediction network (OPN, Lee et al. 2017): which order? An order and its reverse are one class.

    K!/2 classes: 3 for three segments, 12 for four (as published). Merging reverses makes motion that is symmetric in
    time predictable. Defaults: hidden 128, dropout .5.

    Shortcuts it guards against: those of `ClipOrder`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        streams: Sequence[str] = (FUSED,),
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        if segments < 3:
            raise RequestError(f"task 'frame_order' needs data.segments of at least 3, not {segments}")
        orders = list(permutations(range(segments)))
        kept = [order for order in orders if order < order[::-1]]
        super().__init__(modalities, width, segments, len(kept), streams, hidden, dropout)
        self.orders = torch.tensor(kept)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        found = []
        for name in self.streams:
            feature = self.whole(encoded[PLAIN], name)
            target = deal_evenly(len(feature), len(self.orders), generator)
            orders = self.orders[target]
            mirrored = torch.rand(len(feature), 1, generator=generator) < 0.5
            orders = torch.where(mirrored, orders.flip(1), orders).to(feature.device)
            found.append((self.predict(name, shuffle_segments(feature, orders)), target.to(feature.device)))
        return self.judge(found)


class OddOneOut(OrderTask):
    """Odd-one-out networks (O3N, Fernando et al. 2017): which sequence is in the wrong order?

    K sequences of K - 1 segments; each lacks another segment. One sequence has a wrong order that is not the reverse,
    the others are in order. The same layers score each sequence, and the class is the wrong one. Needs K of at least
    4. Defaults: hidden 128, dropout .5.

    Shortcuts it guards against: those of `ClipOrder`, and the place of the wrong sequence (equally frequent).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        streams: Sequence[str] = (FUSED,),
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        if segments < 4:
            raise RequestError(f"task 'odd_one_out' needs data.segments of at least 4, not {segments}")
        super().__init__(modalities, width, segments - 1, 1, streams, hidden, dropout)
        self.chance = 1 / segments
        self.sequences = torch.tensor(list(combinations(range(segments), segments - 1)))
        straight = tuple(range(segments - 1))
        wrong = [order for order in permutations(straight) if order not in (straight, straight[::-1])]
        self.wrong = torch.tensor(wrong)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        found = []
        count = len(self.sequences)
        for name in self.streams:
            feature = self.whole(encoded[PLAIN], name)
            target = deal_evenly(len(feature), count, generator)
            orders = self.sequences.expand(len(feature), -1, -1).clone()
            mixed = self.wrong[torch.randint(len(self.wrong), (len(feature),), generator=generator)]
            rows = torch.arange(len(feature))
            orders[rows, target] = orders[rows, target].gather(1, mixed)
            scores = [
                self.predict(name, shuffle_segments(feature, orders[:, number].to(feature.device)))
                for number in range(count)
            ]
            found.append((torch.cat(scores, dim=1), target.to(feature.device)))
        return self.judge(found)


def shuffle_segments(feature: Tensor, orders: Tensor) -> Tensor:
    """Reorders the segments of each clip: row k of clip b is segment `orders[b, k]`.

    feature: (B, K, D).
    orders: (B, L) segment numbers. Returns (B, L, D).
    """
    return feature.gather(1, orders[..., None].expand(*orders.shape, feature.shape[-1]))
