"""Tasks on whether two streams come from the same clip and the same moment."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ...shards.errors import RequestError
from .base import PLAIN, PretextTask, mean_accuracy, mean_of, modality_pairs, names_in, projection_heads, unit


class PairTask(PretextTask):
    """Base of tasks on pairs of streams: a tower per modality, and a learned scale and bias per pair.

    `logit = scale * cos + bias`, after the distance head of AVE-Net (Arandjelovic & Zisserman 2018). A cosine keeps
    the features useful for retrieval. Towers are 128-d with 256 hidden. The scale starts at 10, the bias at 0.
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
        """Unit vectors (B, K, D) of the towers, by modality."""
        return {name: unit(tower(plain.features[name])) for name, tower in self.towers.items()}

    def logits(self, number: int, cosines: Tensor) -> Tensor:
        """Logits from the cosines of pair `number`, in the same shape."""
        return cosines * self.log_scale[number].exp() + self.bias[number]

    def judge(self, found: Sequence[tuple[Tensor, Tensor]], towers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy and accuracy over all pairs.

        found: cosines (N,) and targets (N,), by pair.
        towers: outputs of the towers, which get a gradient even if no pair has rows.
        """
        losses, correct = [], []
        for number, (cosines, targets) in enumerate(found):
            if len(targets):
                logits = self.logits(number, cosines)
                losses.append(F.binary_cross_entropy_with_logits(logits, targets))
                correct.append(((logits > 0) == (targets > 0.5)).float().mean())
        loss = mean_of(losses, *towers.values(), self.log_scale, self.bias)
        return {"loss": loss, **mean_accuracy(correct)}


class Correspondence(PairTask):
    """Audio-visual correspondence for any pair of modalities (Arandjelovic & Zisserman 2017).

    Positive: the same segment of a clip. Negative: the segment with the same number in another clip of the batch, so
    that neither processing nor place in the clip separates them. Every positive has one negative, so chance is one
    half. A row whose negative lacks the modality is skipped, with its positive.

    Shortcuts it guards against: encoding artefacts of files (both sides are sampled alike) and silence (`present`).
    """

    chance = 0.5

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        towers = self.units(plain)
        clips = len(next(iter(towers.values())))
        # A cyclic shift pairs every clip with another one, and uses each clip once.
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
    """Cosines (2N,) and targets (2N,) of N positives, followed by their N negatives in the same order.

    first, second: (B, K, D), unit vectors of two modalities.
    first_present, second_present: (B, K), presence.
    shift: the negative of clip b is `second` of clip b + shift, same segment.
    """
    mask = first_present & second_present & second_present.roll(-shift, 0)
    return _balanced(first, second, second.roll(-shift, 0), mask)


def _balanced(first: Tensor, second: Tensor, negative: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of `first` with `second` (target 1), then with `negative` (target 0), in the rows of `mask`."""
    positives, negatives = (first * second).sum(-1)[mask], (first * negative).sum(-1)[mask]
    targets = torch.cat([torch.ones_like(positives), torch.zeros_like(negatives)])
    return torch.cat([positives, negatives]), targets


class Synchrony(PairTask):
    """Audio-visual temporal synchronisation (AVTS, Korbar et al. 2018; Owens & Efros 2018) for any pair.

    Positive: the same segment. Hard negative: another segment of the same clip, at least `gap` seconds after the end
    of the first. Easy negative: another clip. Every positive has one negative. Training does not start with hard
    negatives only: their share rises from 0 to `hard` between the shares `easy_until` and `2 easy_until` of the run
    (published: 25 % hard in the second half). Defaults: hard .75, easy_until .25, gap .1 s.

    Shortcut it guards against: borders and padding. A hard negative is a window of the recording, cut like the
    positive, and never rolled or padded. Overlapping windows are skipped.
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
            # A row without the hard negative it was drawn for is skipped: an easy one would change the mixture.
            easy = ~wanted & present.roll(-shift, 0) & (shift > 0)
            mask = plain.present[first] & present & (hard | easy)
            negative = torch.where(hard[..., None], shifted, other)
            found.append(_balanced(towers[first], feature, negative, mask))
        return self.judge(found, towers)


class Offset(PairTask):
    """Finds a segment of one stream among all segments of another stream of the clip (ours).

    For each pair, a K-way cross-entropy on `scale * cos` within the clip, in both directions: the offset between two
    streams is the class, after the shifts of Owens & Efros 2018. All classes are equally frequent, so chance is 1/K.
    Clips with an absent segment, or with gaps between segments below `gap` seconds, are skipped.

    Shortcut it guards against: features that only separate clips (they do not help within a clip).
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
