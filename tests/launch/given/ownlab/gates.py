"""A gate of one weight per modality."""

import torch
from modalgate.fusion import Fused, Fusion
from torch import Tensor, nn


class FixedGate(Fusion):
    """Learned weights, the same for all clips: `g = softmax(sharpness w)` among the present."""

    def __init__(self, modalities: tuple[str, ...], width: int, sharpness: float = 1.0) -> None:
        super().__init__(modalities, width)
        self.arguments = {"sharpness": sharpness}
        self.sharpness = sharpness
        self.scores = nn.Parameter(torch.zeros(len(modalities)))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        mask = torch.stack([present[name] for name in self.modalities], dim=-1)
        values = torch.stack([features[name] for name in self.modalities], dim=-2)
        shares = (self.sharpness * self.scores).softmax(dim=0) * mask
        weights = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1e-9)
        return self.fuse(values, weights, mask)


class NoGate:
    """Not a mechanism."""
