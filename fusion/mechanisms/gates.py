"""Gated fusion of pooled features: one readable weight per modality and sample."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .quality import QualityScore


@dataclass
class Fused:
    """`embedding` (..., D), `weights` (..., M) in the order of the modalities, `aux_loss` () or zero."""

    embedding: Tensor
    weights: Tensor
    aux_loss: Tensor


def stack_features(
    features: dict[str, Tensor], present: dict[str, Tensor], modalities: tuple[str, ...], missing: Tensor
) -> tuple[Tensor, Tensor]:
    """Features (..., M, D) with the learned vector `missing` (M, D) where absent, and the mask (..., M).

    A zero would not do: it is an ordinary value of a feature.
    """
    mask = torch.stack([present[name] for name in modalities], dim=-1)
    values = torch.stack([features[name] for name in modalities], dim=-2)
    return torch.where(mask[..., None], values, missing.to(values.dtype)), mask


def presence_shares(mask: Tensor, like: Tensor) -> Tensor:
    """Equal weights (..., M) of the present modalities, which sum to one, or to zero where none is present."""
    return mask.to(like.dtype) / mask.sum(dim=-1, keepdim=True).clamp_min(1)


class Fusion(nn.Module):
    """What all mechanisms share: the order of the modalities, and a learned vector where none is present."""

    level = "feature"

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)

    def gate_parameters(self) -> list[nn.Parameter]:
        """The parameters that decide weights, and nothing else; none where weights are not learned apart."""
        return []

    def fuse(self, values: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """`sum_m weights_m values_m`, and the learned `nothing` where no modality is present."""
        return self.finish((weights[..., None] * values).sum(dim=-2), weights, mask)

    def finish(self, embedding: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """The same for an embedding that is there already."""
        embedding = torch.where(mask.any(dim=-1, keepdim=True), embedding, self.nothing.to(embedding.dtype))
        return Fused(embedding, weights, embedding.new_zeros(()))


class Gate(Fusion):
    """A mechanism that puts a learned vector in place of an absent modality's feature."""

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.missing = nn.Parameter(torch.zeros(len(modalities), width))


class SoftmaxGate(Gate):
    """The mixture form: a gating network over the concatenated features, normalised over present modalities.

    `a = W2 relu(W1 [h_1; ...; h_M; present] + b1) + b2 + u(q)`, `g = softmax(a / T)`, `z = sum_m g_m h_m`, with
    `a_m = -inf` where m is absent; weights sum to one, or to zero where nothing is present. The last layer starts at
    zero, so training starts from the mean. Jacobs, Jordan et al. 1991; the form 2512.04943 is reported to use.

    Weights that sum to one cannot say "trust nothing": with `scale` they are `s g`, where `s = 2 sigmoid(...)` is one
    more output of the network, and sum to s in (0, 2). `quality`: how many numbers per modality the gate alone is
    given (SNR, blur, a sensor's own flag), as `forward`'s third argument (..., M, quality); `u` is a `QualityScore`.

    The gradient of `h_m` is scaled by `g_m`, so the rich get richer and one modality may take all. `balance` weighs
    `log M - H(mean of g)` over the batch's rows with every modality present, as the auxiliary loss: it asks that
    every modality be used somewhere, and leaves each row free to decide.
    """

    def __init__(
        self,
        modalities: tuple[str, ...],
        width: int,
        hidden: int = 32,
        temperature: float = 1.0,
        balance: float = 0.01,
        dropout: float = 0.0,
        scale: bool = False,
        quality: int = 0,
    ) -> None:
        super().__init__(modalities, width)
        self.temperature, self.balance, self.scale, self.quality = temperature, balance, scale, quality
        self.score = QualityScore(len(modalities), quality) if quality else None
        inputs = len(modalities) * (width + 1)
        self.network = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, len(modalities) + scale)
        )
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def gate_parameters(self) -> list[nn.Parameter]:
        return [*self.network.parameters(), *(self.score.parameters() if self.score else ())]

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        shares, weights = self.weigh(values, mask, quality)
        return replace(self.fuse(values, weights, mask), aux_loss=self.balance * mean_gate_divergence(shares, mask))

    def weigh(self, values: Tensor, mask: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gate's shares (..., M) of features (..., M, D), which sum to one, and the weights made of them."""
        outputs = self.network(torch.cat([values.flatten(-2), mask.to(values.dtype)], dim=-1))
        logits = outputs[..., : len(self.modalities)]
        if self.score is not None and quality is not None:
            logits = logits + self.score(quality, mask)
        shares = masked_softmax(logits / self.temperature, mask)
        return shares, shares * 2 * outputs[..., -1:].sigmoid() if self.scale else shares


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension among those `mask` allows; zero everywhere where it allows none."""
    logits = logits.masked_fill(~mask, float("-inf"))
    # A row of -inf alone would give NaN, also in the gradient: such rows get finite logits, then weight zero.
    logits = torch.where(mask.any(dim=-1, keepdim=True), logits, torch.zeros_like(logits))
    return logits.softmax(dim=-1) * mask


def mean_gate_divergence(weights: Tensor, mask: Tensor) -> Tensor:
    """`log M - H(mean of g)` in nats, the mean over rows of weights (..., M) with all modalities; 0 without any."""
    whole = mask.all(dim=-1, keepdim=True)
    mean = (weights * whole).flatten(0, -2).sum(dim=0) / whole.sum().clamp_min(1)
    divergence = (mean * mean.clamp_min(1e-12).log()).sum() + math.log(weights.shape[-1])
    return torch.where(whole.any(), divergence, torch.zeros_like(divergence))


class SigmoidGate(Gate):
    """Independent gates, each from its own feature: `g_m = sigmoid(w_m . h_m + b_m + u(q_m)) present_m`.

    `z = sum_m g_m h_m`, not normalised: it can say "trust nothing much", but sees no disagreement. Starts at one
    half. After Kiela et al. 2018 (1802.02892), one weight per modality. `quality` as in `SoftmaxGate`.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, quality: int = 0) -> None:
        super().__init__(modalities, width)
        self.quality = quality
        self.score = QualityScore(len(modalities), quality) if quality else None
        self.weight = nn.Parameter(torch.zeros(len(modalities), width))
        self.bias = nn.Parameter(torch.zeros(len(modalities)))

    def gate_parameters(self) -> list[nn.Parameter]:
        return [self.weight, self.bias, *(self.score.parameters() if self.score else ())]

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        logits = (values * self.weight).sum(dim=-1) + self.bias
        if self.score is not None and quality is not None:
            logits = logits + self.score(quality, mask)
        weights = torch.sigmoid(logits) * mask
        return self.fuse(values, weights, mask)
