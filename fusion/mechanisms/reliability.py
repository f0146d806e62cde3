"""The reliability gate: a product of calibrated experts, each weighted by evidence about its stream."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...shards.errors import RequestError
from .concat import quality_column
from .decision import Decision
from .gates import Fused, masked_softmax
from .quality import MEASURES

# What the scores of one modality say about it: entropy, two largest probabilities, agreement.
SIGNS = 4
# Standardised inputs beyond this many deviations are clamped: corruptions may be stronger than those of the training.
FARTHEST = 4.0
# Largest factor by which a weight can be raised or lowered.
STRONGEST = math.log(50)


def bounded(lifts: Tensor) -> Tensor:
    """Logarithms of weights, kept within -log 50 and log 50. Values near zero stay almost the same.

    >>> bounded(torch.tensor([-100.0, 0.0, 0.5])).exp()
    tensor([0.0200, 1.0000, 1.6443])
    """
    return STRONGEST * (lifts / STRONGEST).tanh()


class ReliabilityGate(Decision):
    """`log p = sum_m w_m log p_m`, normalised, with weights from evidence about each stream.

    `p_m = softmax(l_m / T_m)` are calibrated class probabilities, and `w_m = exp(s_m + net(x)_m)`. `x` holds five
    things about every modality, standardised: the entropy of `p_m` over log K, its two largest probabilities, its
    agreement with the mean of all, the quality of its stream, and whether it is present. The logarithm of `w` is the
    average of several small networks. All start at zero, so the gate starts as the product of its experts (`w = 1`).
    An absent modality has weight zero.

    Train it on scores of clips that the experts have not seen (`fit_reliability`): on their own training clips all
    experts are right, and nothing shows which one to trust (stacking, Wolpert 1992).

    hidden: hidden width of each network.
    members: number of networks.
    quality: number of quality measures per modality; 0 uses the scores alone.
    mixture: `p = sum_m g_m p_m` with `g = softmax(s + net(x))` instead, a mean whose weights sum to one.
    by_class: a weight per class beside each `s_m`: `log p(k) = sum_m w_m exp(c_mk) log p_m(k)`. Not with `mixture`.
    supervision: factor of a further loss in `fit_reliability`: each weight predicts the probability that its expert
        gives the true class (after Cao et al. 2024, Predictive Dynamic Fusion). 0: no such loss.

    Raises `RequestError` for `by_class` with `mixture`, and for a negative `supervision`.
    """

    temperature: Tensor
    centre: Tensor
    deviation: Tensor

    def __init__(
        self,
        modalities: tuple[str, ...],
        width: int,
        hidden: int = 8,
        members: int = 5,
        quality: int = MEASURES,
        mixture: bool = False,
        by_class: bool = False,
        supervision: float = 0.0,
    ) -> None:
        super().__init__(modalities, width)
        if mixture and by_class:
            raise RequestError("a mixture weighs whole modalities: give by_class or mixture, not both")
        if supervision < 0:
            raise RequestError(f"supervision is the factor of a loss: give 0 or more, not {supervision:g}")
        self.supervision = supervision
        count, self.quality, self.mixed, self.members = len(modalities), quality, mixture, members
        inputs = count * (SIGNS + quality + 1)
        self.scale = nn.Parameter(torch.zeros(members, count))
        self.classes = nn.Parameter(torch.zeros(members, count, width)) if by_class else None
        self.first = nn.Parameter(torch.randn(members, inputs, hidden) / math.sqrt(inputs))
        self.first_bias = nn.Parameter(torch.zeros(members, hidden))
        self.last = nn.Parameter(torch.zeros(members, hidden, count))
        self.register_buffer("temperature", torch.ones(count))
        self.register_buffer("centre", torch.zeros(count, SIGNS + quality))
        self.register_buffer("deviation", torch.ones(count, SIGNS + quality))

    def gate_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if name != "nothing"]

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        logits, mask = self.logits(features, present)
        opinions = self.opinions(logits)
        lifts = self.lifts(self.signs(opinions, mask, quality), mask)
        return self.join(opinions, lifts.mean(dim=0), mask)

    def opinions(self, logits: Tensor) -> Tensor:
        """Calibrated log probabilities (..., M, K) of logits (..., M, K)."""
        return (logits / self.temperature.to(logits.dtype)[:, None]).log_softmax(dim=-1)

    def signs(self, opinions: Tensor, mask: Tensor, quality: Tensor | None) -> Tensor:
        """Evidence (..., M, 4 + Q) about each modality, not standardised; zero where it is absent.

        opinions: (..., M, K), log probabilities.
        mask: (..., M) bool, presence.
        quality: (..., M, Q), or None if it is unknown.
        """
        there = mask[..., None].to(opinions.dtype)
        chances = opinions.exp() * there
        entropy = -(chances * opinions).sum(dim=-1, keepdim=True) / math.log(opinions.shape[-1])
        best = chances.topk(2, dim=-1).values
        mean = chances.sum(dim=-2, keepdim=True) / there.sum(dim=-2, keepdim=True).clamp_min(1)
        agreement = (chances * mean).sum(dim=-1, keepdim=True)
        columns = [entropy, best, agreement]
        if self.quality:
            columns.append(quality_column(quality, mask, self.quality, opinions))
        return torch.cat(columns, dim=-1)

    def lifts(self, signs: Tensor, mask: Tensor) -> Tensor:
        """Logarithms of the weights (members, ..., M), zero at the start.

        signs: (..., M, 4 + Q), from `signs`.
        mask: (..., M) bool, presence.
        """
        return self.scale.view(self.members, *[1] * (mask.dim() - 1), -1) + self.changes(signs, mask)

    def changes(self, signs: Tensor, mask: Tensor) -> Tensor:
        """The part of `lifts` that depends on the clip (members, ..., M): the outputs of the networks."""
        known = ((signs - self.centre) / self.deviation).clamp(-FARTHEST, FARTHEST) * mask[..., None]
        inputs = torch.cat([known.flatten(-2), mask.to(known.dtype)], dim=-1)
        hidden = torch.einsum("...i,eih->e...h", inputs, self.first)
        hidden = (hidden + self.first_bias.view(self.members, *[1] * (mask.dim() - 1), -1)).tanh()
        return torch.einsum("e...h,ehm->e...m", hidden, self.last)

    def join(self, opinions: Tensor, lifts: Tensor, mask: Tensor, apart: bool = False) -> Fused:
        """Joins log probabilities (..., M, K) by logarithms of weights (..., M).

        apart: the first dimension of `lifts` and `mask` is the member, as in training. Each then has its weights per
            class; otherwise their average counts.
        """
        lifts = bounded(lifts)
        if self.mixed:
            return self.mixture(opinions, masked_softmax(lifts, mask), mask)
        values = opinions
        if self.classes is not None:
            shape = (self.members, *[1] * (opinions.dim() - 2), *self.classes.shape[1:])
            values = opinions * (self.classes.view(shape) if apart else self.classes.mean(dim=0)).exp()
        fused = self.fuse(values, lifts.exp() * mask, mask)
        known = mask.any(dim=-1, keepdim=True)
        return replace(fused, embedding=torch.where(known, fused.embedding.log_softmax(dim=-1), fused.embedding))

    @torch.no_grad()
    def set_temperatures(self, temperatures: Mapping[str, float]) -> None:
        """Sets T of every modality. Raises `ValueError` if one is missing, unknown or not positive."""
        if set(temperatures) != set(self.modalities) or min(temperatures.values()) <= 0:
            raise ValueError(f"give a positive temperature for each of {self.modalities}, not {temperatures}")
        self.temperature.copy_(torch.tensor([temperatures[name] for name in self.modalities]))
