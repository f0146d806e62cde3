"""A task with its own view."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.base import PretextTask
from modalgate.ssl.views.views import View, take_segments
from torch import Tensor, nn


def dim(streams: dict[str, Tensor], present: dict[str, Tensor], generator: torch.Generator) -> View:
    """The first segment of every clip, half of them at a fraction of their contrast."""
    clips = len(next(iter(present.values())))
    segments = torch.zeros(clips, 1, dtype=torch.long)
    dark = torch.rand(clips, generator=generator) < 0.5
    factor = torch.where(dark, 0.1, 1.0)
    taken = take_segments(streams["rgb"], segments)
    changed = taken * factor.to(taken).view(-1, 1, 1, 1, 1, 1)
    kept = {name: take_segments(mask, segments) for name, mask in present.items()}
    return View({"rgb": changed}, kept, segments, {"dark": dark.float().to(taken.device)})


class IsItDark(PretextTask):
    """Says whether the picture was dimmed."""

    views: Mapping = {"dim": dim}
    alone = True
    across_clips = False
    chance = 0.5

    def __init__(self, modalities: Sequence[str], width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Linear(width, 1)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        view = encoded["dim"]
        logits = self.scale * self.head(view.features["rgb"][:, 0])[:, 0]
        target = view.facts["dark"]
        loss = F.binary_cross_entropy_with_logits(logits, target)
        return {"loss": loss, "accuracy": ((logits > 0) == (target > 0.5)).float().mean()}
