"""Fusion by concatenation, without a gate (the baseline) and with one."""

import torch
from torch import Tensor, nn

from .gates import Fused, Fusion, SoftmaxGate, absent_features, gate_balance, presence_shares, stack_features


class ConcatFusion(Fusion):
    """`z = MLP([h_1; ...; h_M; present; q])`, without a gate. A learned vector replaces an absent modality.

    Reported weights: equal shares of the present modalities.

    hidden: width of the hidden layer.
    dropout: probability of dropping a hidden channel.
    quality: number of quality measures q per modality, as in `SoftmaxGate`.
    """

    def __init__(
        self, modalities: tuple[str, ...], width: int, hidden: int = 256, dropout: float = 0.0, quality: int = 0
    ) -> None:
        super().__init__(modalities, width)
        self.missing = absent_features(modalities, width)
        self.quality = quality
        inputs = len(modalities) * (width + 1 + quality)
        self.network = nn.Sequential(
            nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        inputs = [values.flatten(-2), mask.to(values.dtype)]
        if self.quality:
            inputs.append(quality_column(quality, mask, self.quality, values).flatten(-2))
        return self.finish(self.network(torch.cat(inputs, dim=-1)), presence_shares(mask, values), mask)


class GatedConcat(SoftmaxGate):
    """`z = W [n g_1 h_1; ...; n g_M h_M; present] + b`: gated concatenation, for n present modalities.

    The weights `g` are computed as in `SoftmaxGate`, with the same arguments. Equal weights give plain concatenation.
    Unlike a gated sum, concatenation does not need features that are aligned between modalities. An absent modality
    has weight zero.
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
        super().__init__(modalities, width, hidden, temperature, balance, dropout, scale, quality)
        self.join = nn.Linear(len(modalities) * (width + 1), width)

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor], quality: Tensor | None = None
    ) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        shares, weights = self.weigh(values, mask, quality)
        return self.fuse(values, weights, mask).with_auxiliary(gate_balance(shares, mask, self.balance))

    def fuse(self, values: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        """The gated concatenation of values (..., M, D) with weights (..., M), where `mask` (..., M) is true."""
        there = mask.to(values.dtype)
        gated = (weights * there.sum(dim=-1, keepdim=True))[..., None] * values
        return self.finish(self.join(torch.cat([gated.flatten(-2), there], dim=-1)), weights, mask)


def quality_column(quality: Tensor | None, mask: Tensor, columns: int, like: Tensor) -> Tensor:
    """Quality measures (..., M, Q) as network input, 0 where a modality is absent or its quality is unknown.

    quality: (..., M, Q), or None if it is unknown.
    mask: (..., M) bool, presence.
    columns: Q.
    like: tensor with the dtype and device of the result.

    Raises `ValueError` for a quality of another shape.
    """
    if quality is None:
        return like.new_zeros(*mask.shape, columns)
    if quality.shape != (*mask.shape, columns):
        raise ValueError(f"quality has shape {tuple(quality.shape)}: give {(*mask.shape, columns)}")
    return torch.where(mask[..., None], quality.to(like.dtype), torch.zeros_like(quality, dtype=like.dtype))
