"""The linear probe by stochastic gradient descent with a sweep of learning rates: for sets too large for L-BFGS."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class SgdProbe:
    """`softmax((x - mean) / std @ weight + bias)`: mean, std (D,), weight (D, C), bias (C,), the `rate` it took."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    rate: float

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Class probabilities (n, C) of features (n, D)."""
        normalised = (torch.as_tensor(features, dtype=torch.float32) - self.mean) / self.std
        return torch.softmax((normalised @ self.weight + self.bias).double(), dim=1).numpy()


def fit_sgd_probe(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: int,
    validation: tuple[NDArray[np.floating], NDArray[np.int64]],
    *,
    epochs: int = 100,
    batch_size: int = 256,
    seed: int = 0,
) -> SgdProbe:
    """Batch norm without affine, then a linear layer: SGD with momentum .9, no decay, cosine over `epochs`.

    Features (n, D), labels (n,). Every rate of `RATES`, times batch / 256, trains at once on the same batches (He et
    al., "Momentum Contrast", 2020); the one with the most right answers on `validation` is kept, the smallest of
    equals. Raises `ValueError` for no clips, or none to choose by.
    """
    if not len(features) or not len(validation[0]):
        raise ValueError("a sweep of learning rates needs clips to fit and clips to choose by")
    x, y = torch.as_tensor(features, dtype=torch.float32), torch.as_tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, len(x))
    rates = torch.tensor(RATES)[:, None, None] * batch_size / 256
    weight = (0.01 * torch.randn(x.shape[1], classes, generator=generator)).repeat(len(RATES), 1, 1)
    bias = torch.zeros(len(RATES), 1, classes)
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    per_epoch = len(x) // batch_size
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0).clamp_min(1e-5)
    orders = (torch.randperm(len(x), generator=generator)[: per_epoch * batch_size] for _ in range(epochs))
    for step, rows in enumerate(rows for order in orders for rows in order.split(batch_size)):
        batch = F.batch_norm(x[rows], None, None, training=True)
        # Closed form of the gradient of the mean cross-entropy: all rates in one product.
        error = torch.softmax(batch @ weight + bias, dim=-1) - F.one_hot(y[rows], classes)
        gradients = (batch.T @ error / len(rows), error.mean(dim=1, keepdim=True))
        scale = rates * (1 + np.cos(np.pi * step / (epochs * per_epoch))) / 2
        for parameter, buffer, gradient in zip((weight, bias), momentum, gradients, strict=True):
            buffer.mul_(0.9).add_(gradient)
            parameter.sub_(scale * buffer)
    held, truth = torch.as_tensor(validation[0], dtype=torch.float32), torch.as_tensor(validation[1])
    right = (((held - mean) / std @ weight + bias).argmax(dim=-1) == truth).sum(dim=1)
    best = int(right.argmax())
    return SgdProbe(mean, std, weight[best], bias[best, 0], RATES[best])
