"""The fusion mechanisms by name."""

from typing import Any

from torch import nn

from ..shards.errors import RequestError, choice_error
from .concat import ConcatFusion
from .gates import SigmoidGate, SoftmaxGate

FUSIONS: dict[str, type[nn.Module]] = {
    "concat": ConcatFusion,
    "sigmoid": SigmoidGate,
    "softmax": SoftmaxGate,
}


def build_fusion(name: str, modalities: tuple[str, ...], width: int, arguments: dict[str, Any]) -> nn.Module:
    """The mechanism `name` over features of `width`; `RequestError` for an unknown name or argument."""
    if name not in FUSIONS:
        raise choice_error("fusion", name, FUSIONS)
    try:
        return FUSIONS[name](modalities, width, **arguments)
    except TypeError as error:
        raise RequestError(f"fusion '{name}' does not take its arguments {arguments}: {error}") from error
