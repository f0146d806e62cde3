"""The linear probe by stochastic gradient descent with a sweep of learning rates, for data too large for L-BFGS."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class SgdProbe:
    """A fitted probe with `scores = softmax((x - mean) / std @ weight + bias)`."""

    mean: Tensor
    """Mean of each feature (D,)."""
    std: Tensor
    """Scale of each feature (D,)."""
    weight: Tensor
    """Weights (D, C)."""
    bias: Tensor
    """Biases (C,)."""
    rate: float
    """The chosen learning rate, per 256 clips of a batch."""

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns class probabilities (n, C) of features (n, D)."""
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
    """Fits batch norm without affine parameters and a linear layer, by SGD with momentum 0.9 and no weight decay.

    The learning rate follows a cosine over `epochs`. Every rate of `RATES`, times batch size / 256, is trained at the
    same time on the same batches (He et al., "Momentum Contrast", 2020). The rate with the most correct clips on
    `validation` is kept. The smallest one wins a tie.

    - `features` (n, D), `labels` (n,): training clips.
    - `validation`: features (m, D) and labels (m,).

    Raises `ValueError` without training or validation clips.
    """
    if not len(features) or not len(validation[0]):
        raise ValueError("a sweep of learning rates needs training clips and validation clips")
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
        # The gradient of the mean cross-entropy in closed form, for all rates in one product.
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
