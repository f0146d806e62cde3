"""Learned weights that are the same for all samples, the baseline for gates."""

import torch
from torch import Tensor, nn

from .gates import Fused, Gate, masked_softmax, stack_features


class StaticFusion(Gate):
    """`w = softmax(theta)` over the present modalities, `z = sum_m w_m h_m`. Starts as the mean.

    Weights sum to one, or to zero where no modality is present. (Published code learns M - 1 free scalars and gives
    the last modality the remainder, which may be negative. Softmax weights are positive.)
    """

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.theta = nn.Parameter(torch.zeros(len(modalities)))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        return self.fuse(values, masked_softmax(self.theta.expand(mask.shape), mask).to(values.dtype), mask)
