"""Fusion by concatenation: the baseline a gate must be compared with."""

import torch
from torch import Tensor, nn

from .gates import Fused, stack_features


class ConcatFusion(nn.Module):
    """`z = MLP([h_1; ...; h_M; present])`, a learned vector in place of an absent modality.

    It has no gate: the weights it reports are the shares of the modalities present, which all enter whole.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, hidden: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.modalities = modalities
        self.missing = nn.Parameter(torch.zeros(len(modalities), width))
        self.network = nn.Sequential(
            nn.Linear(len(modalities) * (width + 1), hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        embedding = self.network(torch.cat([values.flatten(-2), mask.to(values.dtype)], dim=-1))
        weights = mask / mask.sum(dim=-1, keepdim=True).clamp_min(1)
        return Fused(embedding, weights.to(embedding.dtype), embedding.new_zeros(()))
