"""Fusion by concatenation: the baseline a gate must be compared with."""

import torch
from torch import Tensor, nn

from .gates import Fused, Gate, presence_shares, quality_column, stack_features


class ConcatFusion(Gate):
    """`z = MLP([h_1; ...; h_M; present; q])`, a learned vector in place of an absent modality.

    It has no gate: the weights it reports are the shares of the modalities present, which all enter whole.
    `quality` as in `SoftmaxGate`, so that the comparison with a gate that is told of it is a fair one.
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
