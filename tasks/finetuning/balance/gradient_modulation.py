"""Gradient modulation, which slows the leading modality, and gate warm-up."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ....ssl.gather import sum_over_ranks


class GradientModulation:
    """On-the-fly gradient modulation with noise (OGM-GE, Peng et al. 2022), for any number of modalities.

    - `s_m` is the mean of `softmax(l_m)[label]` over the rows with modality m, from the head of m.
    - `rho_m` is `s_m` divided by the mean s of the other modalities.
    - If `rho_m > 1`, the gradients of all parameters of m are multiplied by `1 - tanh(alpha rho_m)`.
    - Every gradient gets Gaussian noise with its own standard deviation. This replaces the noise lost by the scaling.

    For two modalities this is the published method. `streams` holds the parameters by modality.
    """

    def __init__(self, streams: Mapping[str, Iterable[nn.Parameter]], alpha: float) -> None:
        self.alpha, self.active = alpha, True
        self.factors = dict.fromkeys(streams, 1.0)
        for name, parameters in streams.items():
            for parameter in parameters:
                if parameter.requires_grad:
                    parameter.register_hook(lambda gradient, name=name: self._modulate(name, gradient))

    @torch.no_grad()
    def measure(self, logits: Mapping[str, Tensor], label: Tensor, present: Mapping[str, Tensor]) -> None:
        """Sets the factors of the next backward pass, equal on all ranks.

        - `logits` (B, K, C) by modality.
        - `label` (B, K).
        - `present` (B, K) by modality.
        """
        scores = {}
        for name, rows in logits.items():
            right = rows.float().softmax(dim=-1).gather(-1, label[..., None])[..., 0][present[name]]
            total, count = sum_over_ranks(right.sum()), sum_over_ranks(present[name].sum())
            if int(count):
                scores[name] = float(total / count)
        for name in self.factors:
            others = [score for other, score in scores.items() if other != name]
            ratio = scores[name] * len(others) / sum(others) if name in scores and sum(others) > 0 else 0.0
            self.factors[name] = 1 - math.tanh(self.alpha * ratio) if ratio > 1 else 1.0

    def _modulate(self, name: str, gradient: Tensor) -> Tensor:
        if not self.active:
            return gradient
        deviation = gradient.std(correction=0)
        return gradient * self.factors[name] + torch.randn_like(gradient) * deviation


class GateWarmup:
    """Keeps `parameters` of a gate at their initial values while `holding` is true. The experts train first."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.holding = True
        for parameter in parameters:
            parameter.register_hook(self._hold)

    def _hold(self, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient) if self.holding else gradient
