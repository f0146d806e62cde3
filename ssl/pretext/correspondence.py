"""Tasks on whether two streams are of the same clip, and of the same moment."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ...shards.errors import RequestError
from .base import PLAIN, PretextTask, mean_accuracy, mean_of, modality_pairs, names_in, projection_heads, unit


class PairTask(PretextTask):
    """Base of tasks on pairs of streams: unit towers, and a learned scale and bias for each pair's cosine.

    `logit = scale * cos + bias`, the distance head of AVE-Net (Arandjelovic & Zisserman 2018), in a form that keeps
    features useful for retrieval. Towers are 128-d with 256 hidden; the scale starts at 10, the bias at 0.
    """

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
        self.towers = projection_heads(names_in(self.pairs), width, hidden, dimension)
        self.log_scale = nn.Parameter(torch.full((len(self.pairs),), math.log(10.0)))
        self.bias = nn.Parameter(torch.zeros(len(self.pairs)))

    def units(self, plain: Encoded) -> dict[str, Tensor]:
        """Every tower's unit vectors (B, K, D)."""
        return {name: unit(tower(plain.features[name])) for name, tower in self.towers.items()}

    def logits(self, number: int, cosines: Tensor) -> Tensor:
        """Logits of pair `number`."""
        return cosines * self.log_scale[number].exp() + self.bias[number]

    def judge(self, found: Sequence[tuple[Tensor, Tensor]], towers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy and accuracy over all pairs, each of (cosines, targets)."""
        losses, correct = [], []
        for number, (cosines, targets) in enumerate(found):
            if len(targets):
                logits = self.logits(number, cosines)
                losses.append(F.binary_cross_entropy_with_logits(logits, targets))
                correct.append(((logits > 0) == (targets > 0.5)).float().mean())
        loss = mean_of(losses, *towers.values(), self.log_scale, self.bias)
        return {"loss": loss, **mean_accuracy(correct)}


class Correspondence(PairTask):
    """Audio-visual correspondence for any pair of modalities (Arandjelovic & Zisserman 2017), by a distance.

    Positive: the same segment of one clip. Negative: the segment with the same number in another clip of the batch,
    so neither processing nor place in the clip separates them. There is one negative for every positive, so chance is
    one half in every batch. Rows whose negative lacks the modality are skipped together with their positive.

    Shortcut it guards against: encoding marks of the file (same sampling for both sides) and silence (`present`).
    """

    chance = 0.5

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        towers = self.units(plain)
        clips = len(next(iter(towers.values())))
        # A cyclic shift gives every clip another clip as partner, each of them once.
        shift = int(torch.randint(1, clips, (), generator=generator)) if clips > 1 else 0
        found = [
            corresponding_logits(towers[a], towers[b], plain.present[a], plain.present[b], shift)
            for a, b in self.pairs
            if shift
        ]
        return self.judge(found, towers)


def corresponding_logits(
    first: Tensor, second: Tensor, first_present: Tensor, second_present: Tensor, shift: int
) -> tuple[Tensor, Tensor]:
    """Cosines and targets (2N,) of N positives and, in the same order, their N negatives.

    `first`, `second` (B, K, D) unit vectors; the negative of clip b is `second` of clip b + shift, same segment.
    """
    mask = first_present & second_present & second_present.roll(-shift, 0)
    return _balanced(first, second, second.roll(-shift, 0), mask)


def _balanced(first: Tensor, second: Tensor, negative: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of `first` with `second`, then with `negative`, where `mask`, and targets 1 and 0: as many of each."""
    positives, negatives = (first * second).sum(-1)[mask], (first * negative).sum(-1)[mask]
    targets = torch.cat([torch.ones_like(positives), torch.zeros_like(negatives)])
    return torch.cat([positives, negatives]), targets


class Synchrony(PairTask):
    """Audio-visual temporal synchronisation (AVTS, Korbar et al. 2018; Owens & Efros 2018) for any pair.

    Positive: the same segment. Hard negative: another segment of the same clip, at least `gap` seconds apart without
    overlap; easy negative: another clip. The share of hard negatives rises from 0 to `hard` between the shares
    `easy_until` and twice that of the run, because training does not start with hard ones; published: 25 % hard in
    the second half. One negative for every positive. Defaults: hard .75, easy_until .25, gap .1 s.

    Shortcut it guards against: borders and padding. A shifted negative is a real window of the recording, cut like
    the positive, never rolled or padded; overlapping windows are skipped.
    """

    chance = 0.5

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        seconds: float,
        pairs: Sequence[Sequence[str]] | None = None,
        hard: float = 0.75,
        easy_until: float = 0.25,
        gap: float = 0.1,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        if segments < 2:
            raise RequestError(f"task 'synchrony' needs data.segments of at least 2, not {segments}")
        super().__init__(modalities, width, pairs, hidden, dimension)
        self.hard, self.easy_until, self.distance = hard, easy_until, seconds + gap

    def hard_share(self) -> float:
        """The share of hard negatives at this point of the run."""
        if self.easy_until == 0:
            return self.hard
        return self.hard * min(max(self.progress / self.easy_until - 1, 0.0), 1.0)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        towers, start = self.units(plain), plain.start
        clips, segments = start.shape
        shift = int(torch.randint(1, clips, (), generator=generator)) if clips > 1 else 0
        later = int(torch.randint(1, segments, (), generator=generator))
        wanted = (torch.rand(start.shape, generator=generator) < self.hard_share()).to(start.device)
        apart = (start - start.roll(-later, 1)).abs() >= self.distance - 1e-6
        found = []
        for first, second in self.pairs:
            present, feature = plain.present[second], towers[second]
            shifted, other = feature.roll(-later, 1), feature.roll(-shift, 0)
            hard = wanted & apart & present.roll(-later, 1)
            # A row that should get a hard negative and has none is skipped: an easy one would change the mixture.
            easy = ~wanted & present.roll(-shift, 0) & (shift > 0)
            mask = plain.present[first] & present & (hard | easy)
            negative = torch.where(hard[..., None], shifted, other)
            found.append(_balanced(towers[first], feature, negative, mask))
        return self.judge(found, towers)


class Offset(PairTask):
    """Finds a segment of one stream among all segments of another stream of the clip (ours).

    For each pair, a K-way cross-entropy over `scale * cos` within the clip, both ways: the offset between two streams
    as a class, after the shifts of Owens & Efros 2018. Chance is one K-th, and all classes are equally frequent.
    Clips with an absent segment, or with segments closer than `gap` seconds, are skipped.

    Shortcut it guards against: features that only separate clips; they do not help within one.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        seconds: float,
        pairs: Sequence[Sequence[str]] | None = None,
        gap: float = 0.1,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        if segments < 2:
            raise RequestError(f"task 'offset' needs data.segments of at least 2, not {segments}")
        super().__init__(modalities, width, pairs, hidden, dimension)
        self.distance = seconds + gap
        self.chance = 1 / segments

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        towers, start = self.units(plain), plain.start
        segments = start.shape[1]
        apart = (start.sort(dim=1).values.diff(dim=1) >= self.distance - 1e-6).all(dim=1)
        target = torch.arange(segments, device=start.device).expand(len(start), -1)
        losses, correct = [], []
        for number, (first, second) in enumerate(self.pairs):
            whole = (plain.present[first] & plain.present[second]).all(dim=1) & apart
            for query, bank in ((first, second), (second, first)):
                scores = self.logits(number, towers[query] @ towers[bank].transpose(1, 2))
                if bool(whole.any()):
                    losses.append(F.cross_entropy(scores[whole].flatten(0, 1), target[whole].flatten()))
                    correct.append((scores[whole].argmax(-1) == target[whole]).float().mean())
        loss = mean_of(losses, *towers.values(), self.log_scale, self.bias)
        return {"loss": loss, **mean_accuracy(correct)}
