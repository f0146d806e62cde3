"""Fusion by concatenation: the baseline for gates, and a gate that contains it."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from .gates import Fused, Gate, SoftmaxGate, mean_gate_divergence, presence_shares, stack_features


class ConcatFusion(Gate):
    """`z = MLP([h_1; ...; h_M; present; q])`, a learned vector in place of an absent modality.

    It has no gate; it reports equal shares of the present modalities as weights. `quality` is as in `SoftmaxGate`,
    for a fair comparison with a gate that reads it.
    """

    def __init__(
        self, modalities: tuple[str, ...], width: int, hidden: int = 256, dropout: float = 0.0, quality: int = 0
    ) -> None:
        super().__init__(modalities, width)
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

    The weights `g` are those of `SoftmaxGate`, with the same arguments. Equal weights give plain concatenation.
    Modalities keep separate channels, where a gated sum mixes feature spaces that were never aligned. An absent
    modality has weight zero, and its bit of `present`.
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
        there = mask.to(values.dtype)
        gated = (weights * there.sum(dim=-1, keepdim=True))[..., None] * values
        joined = self.join(torch.cat([gated.flatten(-2), there], dim=-1))
        return replace(self.finish(joined, weights, mask), aux_loss=self.balance * mean_gate_divergence(shares, mask))


def quality_column(quality: Tensor | None, mask: Tensor, columns: int, like: Tensor) -> Tensor:
    """Quality (..., M, Q) as network input: 0 where a modality is absent or its quality is unknown.

    Raises `ValueError` for another shape than `columns` numbers per modality.
    """
    if quality is None:
        return like.new_zeros(*mask.shape, columns)
    if quality.shape != (*mask.shape, columns):
        raise ValueError(f"quality has shape {tuple(quality.shape)}: give {(*mask.shape, columns)}")
    return torch.where(mask[..., None], quality.to(like.dtype), torch.zeros_like(quality, dtype=like.dtype))
