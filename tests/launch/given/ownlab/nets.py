"""A network for pictures."""

from modalgate.shards import Modality
from torch import Tensor, nn


class Pooled(nn.Module):
    """Two convolutions on the mean over time."""

    def __init__(self, modality: Modality, features: int = 6) -> None:
        super().__init__()
        self.arguments = {"features": features}
        self.features = features
        self.network = nn.Sequential(
            nn.Conv2d(modality.channels, 4, 5, 4), nn.ReLU(), nn.Conv2d(4, features, 3), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, video: Tensor) -> Tensor:
        return self.network(video.mean(dim=1)).flatten(1)
