"""Fully sharded training (FSDP): every process keeps a share of the weights and of the optimiser's moments."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ...shards.errors import RequestError


def sharded(objective: nn.Module, device: torch.device) -> nn.Module:
    """A copy of `objective` on `device` whose trainable weights are divided over all processes (ZeRO, Rajbhandari
    et al. 2020; torch's `fully_shard`), to be trained in its place.

    It is one unit: whole while a step's forward and backward pass run, in shares between. With a unit per encoder
    the processes would wait for one whose batch lacks a modality and that does not call its encoder. Weights that
    are not trained (a teacher's, written in the forward pass) stay whole everywhere. Raises `RequestError` for a
    weight that is a single number, which `fully_shard` does not take.
    """
    for name, weight in objective.named_parameters():
        if weight.requires_grad and not weight.ndim:
            raise RequestError(
                f"config key 'train.strategy': fsdp cannot divide the single number '{name}': give ddp"
            )
    twin = copy.deepcopy(objective).to(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    fully_shard(twin, mesh=mesh, ignored_params={weight for weight in twin.parameters() if not weight.requires_grad})
    return twin


def reach_all(model: nn.Module) -> Tensor:
    """Zero, in the graph of every trainable weight: the processes exchange the gradients of those that have one, and
    would wait for ever where one of them lacks a gradient that the others have. Read between forward and backward.
    A weight that nobody reaches thereby gets a gradient of zero, where DDP leaves it without one."""
    return torch.stack([weight.sum() * 0 for weight in model.parameters() if weight.requires_grad]).sum()


def same_buffers(model: nn.Module) -> None:
    """Gives every process the first one's buffers (DDP does so in every step): norms follow each its own batches."""
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)


def whole(value: Any) -> Any:
    """Any nesting of dicts and lists with every divided tensor put together, on the CPU; all processes call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().detach().cpu()
    if isinstance(value, Mapping):
        return {key: whole(entry) for key, entry in value.items()}
    return [whole(entry) for entry in value] if isinstance(value, list | tuple) else value


def divided_like(value: Any, weight: Tensor) -> Any:
    """This process's share of a whole `value`, cut as `weight` is; what has another shape is left as it is."""
    if not isinstance(weight, DTensor) or getattr(value, "shape", None) != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)


def same_weights(groups: Sequence[dict[str, Any]], objective: nn.Module, twin: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups of `objective` with the weights of its `twin` in place of its own."""
    names = {id(weight): name for name, weight in objective.named_parameters()}
    theirs = dict(twin.named_parameters())
    return [{**group, "params": [theirs[names[id(weight)]] for weight in group["params"]]} for group in groups]
