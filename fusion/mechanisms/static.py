"""Learned weights that are the same for all samples: a baseline for gates."""

import torch
from torch import Tensor, nn

from .gates import Fused, Gate, masked_softmax, stack_features


class StaticFusion(Gate):
    """`w = softmax(theta)` over the present modalities, `z = sum_m w_m h_m`; it starts as the mean.

    The weights sum to one, or to zero where nothing is present. (Published code learns M - 1 free scalars and
    gives the last modality the rest, which may be negative; a softmax may not.)
    """

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.theta = nn.Parameter(torch.zeros(len(modalities)))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        return self.fuse(values, masked_softmax(self.theta.expand(mask.shape), mask).to(values.dtype), mask)
