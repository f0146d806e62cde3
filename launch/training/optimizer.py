"""The optimisers, without weight decay on norms and biases, and the cosine schedule with warm-up."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ...fusion.mechanisms.gates import unused_tensors
from ..schema import TrainConfig
from .fsdp import divided_like


def build_optimizer(
    objective: nn.Module, config: TrainConfig, parameter_groups: Sequence[dict[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """The config's optimiser of the trainable parameters.

    AdamW (Loshchilov & Hutter 2019); SGD with Nesterov momentum; LARS (You et al. 2017) for large batches: SGD whose
    step is scaled by the norm of each weight matrix. In SGD and LARS the decay is an L2 penalty on the gradient.

    `parameter_groups`: dicts of `params`, `scale` (factor on the learning rate, default 1) and `begin` (share of the
    run before which they do not train, default 0); default: all parameters. Parameters with at most one dimension
    (norms, biases, temperatures) get no weight decay, and in LARS no scaling.
    """
    groups = []
    for given in parameter_groups or [{"params": objective.parameters()}]:
        trainable = [parameter for parameter in given["params"] if parameter.requires_grad]
        for decayed in (True, False):
            members = [parameter for parameter in trainable if (parameter.ndim > 1) == decayed]
            if members:
                decay = config.weight_decay if decayed else 0.0
                own = {"scale": float(given.get("scale", 1.0)), "begin": float(given.get("begin", 0.0))}
                groups.append({"params": members, "weight_decay": decay, **own})
    rate = config.learning_rate
    if config.optimizer == "lars":
        from lightly.utils.lars import LARS

        return LARS(groups, lr=rate, momentum=config.momentum)
    # Fused: one pass over all tensors, instead of a dozen per tensor, also on a CPU.
    if config.optimizer == "sgd":
        # In torch 2.12 the fused SGD does not support divided weights.
        fused = not any(isinstance(weight, DTensor) for weight in objective.parameters())
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def resume_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads the moments of a saved `state_dict`, but keeps the settings of `optimizer`.

    `load_state_dict` alone would restore the old weight decay of a run that is resumed with another.
    """
    settings = optimizer.state_dict()["param_groups"]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = {
        number: {name: divided_like(value, weights[number]) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({"state": moments, "param_groups": settings})


def without_unused(
    state: Mapping[str, Any], optimizer: torch.optim.Optimizer, objective: nn.Module, held: Collection[str]
) -> Mapping[str, Any]:
    """A saved `state_dict` without the moments of weights that loading ignores (`unused_tensors`).

    The state counts weights by their place in the optimiser, so an extra weight shifts those after it.

    state: the optimiser's state in a checkpoint.
    optimizer: the optimiser of the weights of `objective`, each group in the objective's order.
    held: names of the tensors in the checkpoint.
    """
    places = {name: place for place, (name, _) in enumerate(objective.named_parameters())}
    numbers = {id(weight): places[name] for name, weight in objective.named_parameters()}
    extra = [name for name in unused_tensors(objective) if name in held]
    # Such a weight came after `nothing` of its fusion and was trained with it.
    before = sorted(places[name.removesuffix("missing") + "nothing"] for name in extra)
    kept: list[int] = []
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        layout: list[int | None] = [numbers[id(weight)] for weight in group["params"]]
        surplus = len(saved["params"]) - len(layout)
        for place in reversed(before[:surplus]):
            layout.insert(sum(number is not None and number <= place for number in layout), None)
        before = before[surplus:]
        kept += [old for old, number in zip(saved["params"], layout, strict=True) if number is not None]
    # In the saved order: a weight without a gradient so far has no moments yet.
    renumbered = {old: new for new, old in enumerate(kept)}
    return {**state, "state": {renumbered[old]: value for old, value in state["state"].items() if old in renumbered}}


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> float:
    """Sets every group's rate for `step` (0-based), zero before the group begins; returns the rate of scale 1."""
    rate = config.learning_rate * cosine_with_warmup(step, config.steps, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"] * (step >= group["begin"] * config.steps)
    return rate


def cosine_with_warmup(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at `step` of `steps`: linear over the first `warmup` share, then half a cosine to zero.

    SGDR without restarts (Loshchilov & Hutter 2017). A pure function of the step: a resumed run needs no schedule
    state.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
