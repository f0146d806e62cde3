"""Comparison of models bit for bit."""

import torch
from torch import nn


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have the same tensors under the same names, bit for bit."""
    mine, theirs = first.state_dict(), second.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key].cpu(), theirs[key].cpu()) for key in mine)
