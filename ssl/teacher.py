"""A slow copy of the backbone that gives targets."""

import copy
import math

import torch
from lightly.models.utils import update_momentum
from torch import nn

from ..fusion.backbone import Backbone


class Teacher(nn.Module):
    """The exponential moving average of a backbone (Tarvainen & Valpola 2017), in evaluation mode, without gradient.

    `update(backbone, progress, step)` after every step: the momentum rises from `momentum` to 1 along half a cosine
    over the run (BYOL, Grill et al. 2020), and is at most `(1 + step) / (10 + step)`, without which the copy would
    still be mostly its random start where a short run ends.
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
        """Moves towards `backbone`; `progress` in [0, 1] is the share of the run that is done, `step` its steps."""
        momentum = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * min(progress, 1))) / 2
        momentum = min(momentum, (1 + step) / (10 + step))
        update_momentum(backbone, self.backbone, m=momentum)
        # Running statistics are no parameters; the student's are already averages.
        for mine, theirs in zip(self.backbone.buffers(), backbone.buffers(), strict=True):
            mine.copy_(theirs)
