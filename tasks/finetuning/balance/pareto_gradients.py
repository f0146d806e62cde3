"""Gradients of the fused and of the single-modality loss, joined so that neither is harmed (MMPareto)."""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

# Factor on the norm of the plain sum.
PUBLISHED = 1.5


class ParetoGradients:
    """MMPareto (Wei & Hu 2024): joins two gradients of each encoder, `g0` of the fused loss and `g1` of its head's.

    - If `g0 . g1 >= 0`, both have weight one half.
    - Otherwise `w0 g0 + w1 g1` is the vector of smallest norm with `w0 + w1 = 1` and weights of at least zero. It
      lowers both losses.
    - The result has the direction of `w0 g0 + w1 g1` and the norm of `g0 + g1`, times `scale`.

    The control is the plain sum of the same losses: `unimodal_weight` without this aid. `streams` holds the
    parameters by modality. Each process joins the gradients of its own rows.
    """

    def __init__(self, streams: Mapping[str, Iterable[nn.Parameter]], scale: float = PUBLISHED) -> None:
        self.scale = scale
        self.streams = {
            name: [parameter for parameter in parameters if parameter.requires_grad]
            for name, parameters in streams.items()
        }
        self.pairs: dict[int, tuple[Tensor, Tensor, float, float]] = {}
        for parameters in self.streams.values():
            for parameter in parameters:
                parameter.register_hook(partial(self._joined, id(parameter)))

    def measure(self, fused: Tensor, own: Mapping[str, Tensor]) -> None:
        """Sets the weights of the next backward pass of `fused + sum of own`.

        - `fused`: loss of the fused scores.
        - `own`: loss of the head of each modality, with its weight in the sum.
        """
        self.pairs = {}
        for name, parameters in self.streams.items():
            if name not in own:
                continue
            first, second = (
                torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                for loss in (fused, own[name])
            )
            first = [_known(g, p) for g, p in zip(first, parameters, strict=True)]
            second = [_known(g, p) for g, p in zip(second, parameters, strict=True)]
            one, two = pareto_factors(_flat(first), _flat(second), self.scale)
            for parameter, g0, g1 in zip(parameters, first, second, strict=True):
                self.pairs[id(parameter)] = (g0, g1, one, two)

    def _joined(self, key: int, gradient: Tensor) -> Tensor:
        if key not in self.pairs:
            return gradient
        first, second, one, two = self.pairs.pop(key)
        # The backward pass may scale the loss: for accumulation, or to avoid underflow.
        plain = first + second
        size = plain.square().sum()
        factor = torch.where(size > 0, (gradient * plain).sum() / size.clamp_min(1e-30), torch.ones_like(size))
        return factor * (one * first + two * second)


def pareto_factors(fused: Tensor, own: Tensor, scale: float = PUBLISHED) -> tuple[float, float]:
    """Returns the factors (a, b) of the joined gradient `a fused + b own`. See `ParetoGradients`.

    - `fused`, `own` (P,): the two gradients of one encoder.

    >>> pareto_factors(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1.0)
    (1.0, 1.0)
    """
    product = float(fused @ own)
    if product >= 0:
        first = 0.5
    else:
        gap = float((fused - own).square().sum())
        first = min(max(float((own - fused) @ own) / gap, 0.0), 1.0) if gap else 0.5
    joined = first * fused + (1 - first) * own
    norm, wanted = float(joined.norm()), float((fused + own).norm())
    factor = scale * wanted / norm if norm else 0.0
    return factor * first, factor * (1 - first)


def _known(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient.detach()


def _flat(gradients: Iterable[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients]).double()
