"""Fully sharded training (FSDP): every process holds a share of the weights and of the optimiser's moments."""

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
    """A copy of `objective` on `device` whose trainable weights are divided over all processes; it is trained in its
    place.

    ZeRO (Rajbhandari et al. 2020) by torch's `fully_shard`. The copy is one unit: whole during the forward and
    backward pass of a step, divided between. With one unit per encoder, processes would wait for a process whose
    batch lacks a modality and that does not call its encoder. Weights that are not trained (a teacher's, written in
    the forward pass) stay whole everywhere. Raises `RequestError` for a weight that is a single number, which
    `fully_shard` does not take.
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
    """Zero, connected to every trainable weight in the graph; read between forward and backward.

    Processes exchange the gradients of weights that have one, and would wait for ever for a process that lacks one.
    Adding this zero gives every weight a gradient; weights that nothing reaches get zero, where DDP gives none.
    """
    return torch.stack([weight.sum() * 0 for weight in model.parameters() if weight.requires_grad]).sum()


def same_buffers(model: nn.Module) -> None:
    """Gives every process the buffers of the first, as DDP does in every step: each norm follows its own batches."""
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)


def whole(value: Any) -> Any:
    """`value` (nested dicts and lists) with every divided tensor joined, on the CPU; all processes call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().detach().cpu()
    if isinstance(value, Mapping):
        return {key: whole(entry) for key, entry in value.items()}
    return [whole(entry) for entry in value] if isinstance(value, list | tuple) else value


def divided_like(value: Any, weight: Tensor) -> Any:
    """This process's share of a whole `value`, divided as `weight` is; a value of another shape is returned as it
    is.
    """
    if not isinstance(weight, DTensor) or getattr(value, "shape", None) != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)


def same_weights(groups: Sequence[dict[str, Any]], objective: nn.Module, twin: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups of `objective` with the weights of its copy `twin`."""
    names = {id(weight): name for name, weight in objective.named_parameters()}
    theirs = dict(twin.named_parameters())
    return [{**group, "params": [theirs[names[id(weight)]] for weight in group["params"]]} for group in groups]
