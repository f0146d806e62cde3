"""Control of size: the hidden width at which a model of one modality has as many parameters as a fused model."""

from collections.abc import Callable

from torch import nn


def matched_hidden(fused: nn.Module, build: Callable[[int], nn.Module]) -> int:
    """Returns the width W, at least 1, at which `build(W)` has nearly as many parameters as `fused`.

    - `build`: builds the model of one modality with a hidden layer of a width. Its number of parameters is a linear
      function of the width, as for one hidden layer.

    >>> matched_hidden(nn.Linear(9, 10), lambda width: nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1)))
    20
    """
    smallest = _count(build(1))
    each = _count(build(2)) - smallest
    return max(1, 1 + round((_count(fused) - smallest) / each))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
