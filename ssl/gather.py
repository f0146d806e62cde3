"""Gathers features from all ranks, with gradient."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..fusion.backbone import Encoded


class _Gather(torch.autograd.Function):
    """One exchange forward and one backward. The version in torch needs one backward exchange per rank."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _gathered(rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradient.contiguous()
        share = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(share, gradient)
        return share


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Gathers rows (N, ...) of all ranks as (world * N, ...), in rank order. Does nothing on one process.

    N must be the same on all ranks. The backward pass sums the gradients of all ranks, and gradient averaging then
    divides by the number of ranks. If the loss is the mean over the local rows, the averaged gradient equals that of
    one process on the joined batch. `accelerator.gather` would stop the gradient, so a contrastive loss would train
    on local rows only.
    """
    return rows if world_size() == 1 else _Gather.apply(rows)  # pyright: ignore[reportReturnType]


def gather(rows: Tensor) -> Tensor:
    """Like `gather_with_gradient`, but without gradient."""
    return rows if world_size() == 1 else _gathered(rows)


def _gathered(rows: Tensor) -> Tensor:
    joined = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(joined, rows.contiguous())
    return joined


def rank() -> int:
    """The rank of this process; 0 if there is only one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a count over all ranks, without gradient."""
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_encoded(views: Mapping[str, Encoded]) -> dict[str, Encoded]:
    """Joins every view over all ranks, with gradient. Returns the same objects on one process.

    views: by name, encoded on this rank.

    Each rank then computes the loss of the joined batch, and the gradient averaged over ranks equals that of one
    process. Tasks do not depend on the number of ranks. There are only two exchanges for all views, because latency
    costs more than bytes: one with gradient (features, embeddings and gate weights), one without.
    """
    if world_size() == 1:
        return dict(views)
    learned, fixed = [], []
    for view in views.values():
        features = [*view.features.values(), view.embedding, view.weights]
        # Decided per view, because a single tensor may need a gradient on one rank only.
        (learned if any(tensor.requires_grad for tensor in features) else fixed).extend(features)
        fixed += [*view.present.values(), view.start, *view.facts.values()]
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in learned) else torch.float32
    found: dict[int, Tensor] = {}
    if learned:
        packed = [_flat(tensor.to(wide)) for tensor in learned]
        joined = gather_with_gradient(torch.cat(packed, dim=1)).split([part.shape[1] for part in packed], dim=1)
        found |= {id(old): _like(new, old) for old, new in zip(learned, joined, strict=True)}
    raw = [_flat(tensor.detach()).contiguous().view(torch.uint8) for tensor in fixed]
    bits = gather(torch.cat(raw, dim=1)).split([part.shape[1] for part in raw], dim=1)
    found |= {id(old): _like(new.contiguous().view(old.dtype), old) for old, new in zip(fixed, bits, strict=True)}
    return {
        name: replace(
            view,
            features={name: found[id(feature)] for name, feature in view.features.items()},
            present={name: found[id(mask)] for name, mask in view.present.items()},
            embedding=found[id(view.embedding)],
            weights=found[id(view.weights)],
            start=found[id(view.start)],
            facts={name: found[id(fact)] for name, fact in view.facts.items()},
        )
        for name, view in views.items()
    }


def joined_gate_loss(views: Sequence[Encoded]) -> Tensor:
    """The auxiliary loss of the fusion () for the joined batch of all processes, with gradient.

    It is the mean over the views that have one: the balance of a gate, for example, needs rows with all modalities,
    and a view with a hidden modality has none. Every process must give the same views.

    views: encoded on this rank.
    """
    known = [view.auxiliary for view in views if view.auxiliary is not None]
    if not known:
        losses = torch.stack([view.aux_loss for view in views])
        return losses.sum() / (losses != 0).sum().clamp_min(1)
    wide = torch.float64 if any(part.sums.dtype == torch.float64 for part in known) else torch.float32
    packed = torch.cat([row for part in known for row in (part.sums.to(wide), part.rows.to(wide)[None])])
    # Rank sums add up, so the loss is that of the joined batch.
    joined = gather_with_gradient(packed[None]).sum(dim=0).split([len(part.sums) + 1 for part in known])
    sums = [replace(part, sums=row[:-1], rows=row[-1].detach()) for part, row in zip(known, joined, strict=True)]
    counted = torch.stack([part.rows > 0 for part in sums]).sum()
    return torch.stack([part.value() for part in sums]).sum() / counted.clamp_min(1)


def _flat(tensor: Tensor) -> Tensor:
    """Reshapes (B, ...) to (B, N)."""
    return tensor.reshape(len(tensor), -1)


def _like(rows: Tensor, old: Tensor) -> Tensor:
    """Reshapes flat rows to the shape and dtype of `old`."""
    return rows.to(old.dtype).unflatten(1, old.shape[1:]) if old.ndim > 1 else rows.to(old.dtype)[:, 0]
