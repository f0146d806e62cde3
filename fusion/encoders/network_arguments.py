"""The arguments that describe the architecture of a published network."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

import timm
import torch
from torch import nn
from torchvision.models import video as video_models

from ...shards.errors import RequestError, choice_error
from ..own_classes import is_path
from .encoders import VIDEO_MODELS

# Larger numbers describe no network: loops over them would not end.
MOST = 2**20
# Set by the backbone from the modality.
GIVEN = frozenset({"self", "in_chans", "num_classes", "cfg", "device", "dtype"})


def check_arguments(model: str, arguments: Mapping[str, Any]) -> None:
    """Checks the arguments of a network against its constructor's, without building it in memory.

    model: `timm/NAME`, `torchvision/NAME`, another network of `encoders.ENCODERS`, or a class path.
    arguments: by name. Those of a class path are not checked, because its class may take any.

    timm has further arguments, which read files or addresses: they are not the constructor's. Raises `RequestError`
    for an argument that the constructor does not have, and `ValueError` for a number above `MOST`.
    """
    if not arguments or is_path(model):
        return
    _check_numbers(arguments)
    family, _, name = model.partition("/")
    if family in ("timm", "torchvision"):
        known = constructor_arguments(family, name)
        for argument in arguments:
            if argument not in known:
                raise choice_error(f"argument of network {model}", argument, known)


def constructor_arguments(family: str, name: str) -> set[str]:
    """Names of the arguments of a network's constructor, and of the fields of its configuration if it has one.

    family: `timm` or `torchvision`.
    name: the network. Raises `RequestError` if there is none of this name.
    """
    if not (timm.is_model(name) if family == "timm" else name in VIDEO_MODELS):
        raise RequestError(f"unknown network '{family}/{name}'")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network: nn.Module = (
            timm.create_model(name) if family == "timm" else getattr(video_models, name)(weights=None)
        )
    found: set[str] = set()
    for kind in type(network).__mro__:
        if kind is nn.Module:
            break
        constructor: Any = kind.__init__
        named = [one for one in inspect.signature(constructor).parameters.values() if one.kind is not one.VAR_KEYWORD]
        found |= {one.name for one in named if one.kind is not one.VAR_POSITIONAL}
        # RegNet, NFNet and others replace fields of their configuration.
        for hint in get_type_hints(constructor).values():
            if isinstance(hint, type) and dataclasses.is_dataclass(hint):
                found |= {field.name for field in dataclasses.fields(hint)}
    return {one for one in found - GIVEN if not one.startswith("pretrained_cfg")}


def _check_numbers(value: Any) -> None:
    left = [value]
    while left:
        entry = left.pop()
        if isinstance(entry, Mapping):
            left += entry.values()
        elif isinstance(entry, list | tuple):
            left += entry
        elif isinstance(entry, int | float) and abs(entry) > MOST:
            raise ValueError(f"an argument is {entry}, more than {MOST}")
