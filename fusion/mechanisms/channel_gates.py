"""Gates with one weight per channel."""

import torch
from torch import Tensor, nn

from .gates import Fused, Gate, absent_features, stack_features


class VectorGate(Gate):
    """`g_m = sigmoid(W_m h_m + b_m) present_m` in R^D, `z = sum_m g_m * h_m` (after Kiela et al. 2018, 1802.02892).

    Each gate depends only on the feature of its modality, so the gates are independent. All gates start at one half.
    Reported weights: the mean of g_m over channels, in (0, 1) for present modalities.
    """

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.weight = nn.Parameter(torch.zeros(len(modalities), width, width))
        self.bias = nn.Parameter(torch.zeros(len(modalities), width))

    def gate_parameters(self) -> list[nn.Parameter]:
        return [self.weight, self.bias]

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities)
        logits = torch.einsum("...md,med->...me", values, self.weight) + self.bias
        gates = torch.sigmoid(logits) * mask[..., None]
        return self.fuse(values, gates, mask)


class GatedMultimodalUnit(Gate):
    """`u_m = tanh(W_m h_m)`, `g_m = sigmoid(V_m [h_1; ...; h_M]) present_m`, `z = sum_m g_m * u_m`.

    Arevalo et al. 2017 (1702.01992); gates have no bias. For two modalities the paper sets the second gate to one
    minus the first. Gates are independent here, so that all can be low and any number of modalities works. Reported
    weights: the mean of g_m over channels.
    """

    def __init__(self, modalities: tuple[str, ...], width: int) -> None:
        super().__init__(modalities, width)
        self.missing = absent_features(modalities, width)
        count = len(modalities)
        self.content = nn.Parameter(torch.randn(count, width, width) / width**0.5)
        self.weight = nn.Parameter(torch.zeros(count, width, count * width))

    def gate_parameters(self) -> list[nn.Parameter]:
        return [self.weight]

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        values, mask = stack_features(features, present, self.modalities, self.missing)
        contents = torch.einsum("...md,med->...me", values, self.content).tanh()
        gates = torch.sigmoid(torch.einsum("...d,med->...me", values.flatten(-2), self.weight)) * mask[..., None]
        return self.fuse(contents, gates, mask)
