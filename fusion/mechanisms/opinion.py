"""A gated product of experts: the weight of a modality depends on the class scores."""

import math

import torch
from torch import Tensor, nn

from .decision import Decision
from .gates import Fused


class OpinionPool(Decision):
    """`log p = sum_m g_m log p_m`, normalised: a logarithmic opinion pool (Genest & Zidek 1986) with gated weights.

    `g = 2 sigmoid(W2 relu(W1 [s_1; ...; s_M; present] + b1) + b2)`, zero where absent. `s_m` has three numbers: the
    entropy over log K, the largest probability, and the agreement with the others, `sum_k p_m(k) mean_{n != m}
    p_n(k)`. They do not depend on which class is which. The last layer starts at zero, so all weights start at one,
    the `product` rule. A lower weight tempers an expert that is overconfident or disagrees with the others. Classes
    are assumed to be equally frequent.

    hidden: hidden width of the gating network.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, hidden: int = 16) -> None:
        super().__init__(modalities, width)
        count = len(modalities)
        self.network = nn.Sequential(nn.Linear(4 * count, hidden), nn.ReLU(), nn.Linear(hidden, count))
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def gate_parameters(self) -> list[nn.Parameter]:
        return list(self.network.parameters())

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        logits, mask = self.logits(features, present)
        opinions = logits.log_softmax(dim=-1)
        signs = torch.cat([_signs(opinions, mask).flatten(-2), mask.to(logits.dtype)], dim=-1)
        weights = 2 * self.network(signs).sigmoid() * mask
        return self.fuse(opinions, weights, mask)

    def fuse(self, values: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """`log p` from log probabilities (..., M, K) and weights (..., M), where `mask` (..., M) is true."""
        pooled = (weights[..., None] * values).sum(dim=-2)
        return self.finish(pooled.log_softmax(dim=-1), weights, mask)


def _signs(opinions: Tensor, mask: Tensor) -> Tensor:
    """Entropy, largest probability and agreement (..., M, 3) of log probabilities (..., M, K). Zero where absent."""
    chances = opinions.exp() * mask[..., None]
    entropy = -(chances * opinions).sum(dim=-1) / math.log(opinions.shape[-1])
    others = chances.sum(dim=-2, keepdim=True) - chances
    count = (mask.sum(dim=-1, keepdim=True) - 1).clamp_min(1)
    agreement = (chances * others).sum(dim=-1) / count
    return torch.stack([entropy, chances.amax(dim=-1), agreement], dim=-1)
