"""A moving average of the backbone, which provides targets."""

import copy
import math

import torch
from lightly.models.utils import update_momentum
from torch import nn

from ..fusion.backbone import Backbone


class Teacher(nn.Module):
    """The exponential moving average of a backbone (Tarvainen & Valpola 2017), in evaluation mode, without gradient.

    Call `update` after every step. The momentum rises from `momentum` to 1 along half a cosine over the run (BYOL,
    Grill et al. 2020). It is at most `(1 + step) / (10 + step)`; otherwise the average would still be mostly random
    weights at the end of a short run.
    """

    def __init__(self, backbone: Backbone, momentum: float = 0.996) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.momentum = momentum

    def train(self, mode: bool = True) -> "Teacher":
        super().train(False)
        return self

    @torch.no_grad()
    def update(self, backbone: Backbone, progress: float, step: int) -> None:
        """Moves towards `backbone`, at `progress` in [0, 1] of the run, after `step` steps."""
        momentum = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * min(progress, 1))) / 2
        momentum = min(momentum, (1 + step) / (10 + step))
        update_momentum(backbone, self.backbone, m=momentum)
        # Running statistics are copied: they are averages already.
        for mine, theirs in zip(self.backbone.buffers(), backbone.buffers(), strict=True):
            mine.copy_(theirs)
