"""A moving average of the backbone, which computes targets."""

import copy
import math

import torch
from lightly.models.utils import update_momentum
from torch import nn

from ..fusion.backbone import Backbone


class Teacher(nn.Module):
    """The exponential moving average of a backbone (Tarvainen & Valpola 2017), in evaluation mode, without gradient.

    backbone: is copied.
    momentum: at the start of the run. It rises to 1 along half a cosine (BYOL, Grill et al. 2020), but is at most
        `(1 + step) / (10 + step)`, or random initial weights would dominate the average in a short run.

    Call `update` after every step.
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
        """Moves the average towards `backbone`.

        progress: share of the run that is done, in [0, 1].
        step: number of steps so far.
        """
        momentum = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * min(progress, 1))) / 2
        momentum = min(momentum, (1 + step) / (10 + step))
        update_momentum(backbone, self.backbone, m=momentum)
        # Running statistics are already averages, so they are copied.
        for mine, theirs in zip(self.backbone.buffers(), backbone.buffers(), strict=True):
            mine.copy_(theirs)
