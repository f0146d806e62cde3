"""Features of all ranks, with gradient."""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from ..fusion.backbone import Encoded


def gather_with_gradient(rows: Tensor) -> Tensor:
    """(N, ...) on every rank to (world * N, ...), in rank order; the identity on one process.

    `accelerator.gather` cuts the gradient: a contrastive loss would learn from local rows only. Here the backward
    pass sums each rank's share, and gradient averaging divides by the world: so with a loss that is the mean over
    the local rows, the averaged gradient equals that of one process on the joined batch. N must agree on all ranks.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    return torch.cat(all_gather(rows.contiguous()))


def gather(rows: Tensor) -> Tensor:
    """The same without gradient, for masks and numbers."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def rank() -> int:
    """This process's rank, 0 without distribution."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a count over all ranks, without gradient."""
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def world_size() -> int:
    """The number of processes, 1 without distribution."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_encoded(encoded: Encoded) -> Encoded:
    """The joined batch of all ranks, with gradient; the same object on one process.

    Tasks then compute the loss of the joined batch on every rank alike, and the gradient averaged over ranks is that
    of one process, whatever the loss: no task needs to know of ranks.
    """
    if world_size() == 1:
        return encoded
    return replace(
        encoded,
        features={name: gather_with_gradient(feature) for name, feature in encoded.features.items()},
        present={name: gather(mask) for name, mask in encoded.present.items()},
        embedding=gather_with_gradient(encoded.embedding),
        weights=gather_with_gradient(encoded.weights),
        start=gather(encoded.start),
        facts={name: gather(fact) for name, fact in encoded.facts.items()},
    )
