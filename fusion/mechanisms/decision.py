"""Fusion of decisions: joins the class scores of one head per modality.

`features` are logits (..., K) by modality, and `width` is K. The fused embedding holds logits as well: log
probabilities, except for `energy`. Where no modality is present, the logits are a learned vector.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .gates import Fused, Fusion, presence_shares, stack_features


class Decision(Fusion):
    """Base of decisions. Logits of absent modalities are not used."""

    level = "decision"

    def logits(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Stacked logits (..., M, K), zero where a modality is absent, and presence (..., M)."""
        return stack_features(features, present, self.modalities)

    def opinions(self, logits: Tensor) -> Tensor:
        """Log probabilities (..., M, K) of the experts from their logits (..., M, K)."""
        return logits.log_softmax(dim=-1)

    def mixture(self, logits: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """`log sum_m weights_m softmax(l_m)`, computed in the log domain.

        logits: (..., M, K).
        weights: (..., M), zero for absent modalities.
        mask: (..., M) bool, presence.
        """
        # The weight of an absent modality is zero. Clamping keeps its logarithm and the gradient finite.
        terms = logits.log_softmax(dim=-1) + weights.clamp_min(1e-12).log()[..., None]
        terms = terms.masked_fill(~mask[..., None], -1e4)
        return self.finish(terms.logsumexp(dim=-2), weights, mask)


class MeanDecision(Decision):
    """`p = sum_m present_m p_m / sum_m present_m` (Simonyan & Zisserman 2014). Weights sum to one."""

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        logits, mask = self.logits(features, present)
        return self.mixture(logits, presence_shares(mask, logits), mask)


class WeightedMeanDecision(Decision):
    """`p = sum_m w_m present_m p_m / sum_m w_m present_m`: a mean with a fixed weight per modality.

    The buffer `votes` (M,) holds the weights w. They are equal until `set_votes` changes them, and are not trained.
    If all present modalities have weight zero, they count equally. Reported weights sum to one.
    """

    votes: Tensor

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.register_buffer("votes", torch.ones(len(modalities)))

    def set_votes(self, votes: Mapping[str, float]) -> None:
        """Sets the weight of every modality. Raises `ValueError` if one is negative, missing or unknown."""
        if set(votes) != set(self.modalities) or min(votes.values()) < 0:
            raise ValueError(f"votes must hold a weight of at least 0 for each of {self.modalities}, not {votes}")
        self.votes.copy_(torch.tensor([votes[name] for name in self.modalities]))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        logits, mask = self.logits(features, present)
        shares = presence_shares(mask, logits)
        weighed = shares * self.votes.to(logits.dtype)
        total = weighed.sum(dim=-1, keepdim=True)
        weights = torch.where(total > 0, weighed / total.clamp_min(1e-6), shares)
        return self.mixture(logits, weights, mask)


class ProductDecision(Decision):
    """`log p = sum_m log p_m - (n - 1) log p(y)`, normalised, for n present modalities.

    This is Bayes' rule if modalities are independent given the class and their heads are calibrated. Reported
    weights: 1 for each present modality.

    prior: (K,) class frequencies p(y), above 0; default: equal.

    Raises `ValueError` for a prior of another length or with a frequency of 0 or less.
    """

    log_prior: Tensor

    def __init__(self, modalities: tuple[str, ...], width: int, prior: list[float] | None = None) -> None:
        super().__init__(modalities, width)
        # Checked as numbers: a bundle is first built without values.
        if prior is not None and (len(prior) != width or not all(value > 0 for value in prior)):
            raise ValueError(f"prior must hold {width} positive frequencies, not {prior}")
        frequencies = torch.tensor(prior if prior is not None else [1.0] * width)
        self.register_buffer("log_prior", (frequencies / frequencies.sum()).log())

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        logits, mask = self.logits(features, present)
        return self.fuse(self.opinions(logits), mask.to(logits.dtype), mask)

    def fuse(self, values: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """`log p` from log probabilities (..., M, K); an expert with a weight (..., M) of w counts as w experts."""
        joint = (values * weights[..., None]).sum(dim=-2)
        joint = joint - (weights.sum(dim=-1, keepdim=True) - 1) * self.log_prior.to(values.dtype)
        return self.finish(joint.log_softmax(dim=-1), weights, mask)


class EntropyDecision(Decision):
    """`p = sum_m w_m p_m` with `w_m ~ 1 - H(p_m) / log K`: modalities with confident scores count more.

    Weights sum to one over the present modalities. They are equal if all scores are uniform. This is our
    interpretation of "Shannon fusion" (Yudistira & Kurita, 1807.08291).
    """

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        logits, mask = self.logits(features, present)
        entropy = -(logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)
        sure = (1 - entropy / math.log(logits.shape[-1])).clamp_min(1e-6) * mask
        return self.mixture(logits, sure / sure.sum(dim=-1, keepdim=True).clamp_min(1e-6), mask)


class EnergyDecision(Decision):
    """`l = sum_m c_m l_m` over the present modalities, with `c_m = logsumexp(l_m) / 10` (Zhang et al. 2023, QMF).

    Reported weights: c_m. They need not sum to one, and are negative where all logits are small. The paper also has a
    loss that ties c_m to the past losses of a sample; it is not implemented.
    """

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        logits, mask = self.logits(features, present)
        return self.fuse(logits, logits.logsumexp(dim=-1) / 10 * mask, mask)


class EvidentialDecision(Decision):
    """Dempster's rule over Dirichlet opinions (Han et al. 2021, TMC).

    An opinion has beliefs `b = e / S` and uncertainty `u = K / S`, with `e = softplus(l)` and `S = sum e + K`. Two
    opinions join as `b = (b1 b2 + b1 u2 + b2 u1) / (1 - C)`, `u = u1 u2 / (1 - C)`, `C = sum_{i != j} b1_i b2_j`. An
    absent modality has `b = 0, u = 1`, the identity of the rule. The result is `log(b + u / K)`. Reported weights:
    `1 - u_m`.
    """

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        logits, mask = self.logits(features, present)
        classes = logits.shape[-1]
        evidence = F.softplus(logits) * mask[..., None]
        strength = evidence.sum(dim=-1, keepdim=True) + classes
        beliefs, doubts = evidence / strength, classes / strength
        belief, doubt = beliefs[..., 0, :], doubts[..., 0, :]
        for number in range(1, len(self.modalities)):
            other, unsure = beliefs[..., number, :], doubts[..., number, :]
            agreed = belief * other
            conflict = belief.sum(-1, keepdim=True) * other.sum(-1, keepdim=True) - agreed.sum(-1, keepdim=True)
            # Zero for two certain opinions that contradict each other.
            rest = (1 - conflict).clamp_min(1e-6)
            belief, doubt = (agreed + belief * unsure + other * doubt) / rest, doubt * unsure / rest
        chances = (belief + doubt / classes).clamp_min(1e-12)
        return self.finish(chances.log(), (1 - doubts[..., 0]) * mask, mask)
