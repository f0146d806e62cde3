"""Learning rates by depth: lower layers of a pretrained encoder get a lower rate and start later."""

from collections.abc import Mapping
from typing import Any

from timm.models import group_parameters
from torch import nn

from ...fusion.backbone import Backbone


def encoder_groups(
    backbone: Backbone, scale: float = 1.0, decay: float = 1.0, begin: float = 0.0, end: float = 0.0
) -> list[dict[str, Any]]:
    """Returns parameter groups: `params`, `scale` of the learning rate, `begin` (share of the run before training).

    A layer n below the top has the scale `scale * decay^n` (BEiT, Bao et al. 2022; published: 0.65 to 0.75).
    Projections and fusion are the top and start at `begin`. Lower layers start one after another, the lowest at `end`
    (gradual unfreezing, Howard & Ruder 2018). Layers are counted for each encoder separately.
    """
    if decay == 1 and end <= begin:
        return [{"params": list(backbone.parameters()), "scale": scale, "begin": begin}]
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    encoders = {id(parameter) for parameter in backbone.encoders.parameters()}
    grouped[scale, begin] = [parameter for parameter in backbone.parameters() if id(parameter) not in encoders]
    for encoder in backbone.encoders.values():
        layers = layer_numbers(encoder)
        top = max(layers.values(), default=0) + 1
        for name, parameter in encoder.named_parameters():
            below = top - layers[name]
            key = scale * decay**below, begin + max(end - begin, 0.0) * below / top
            grouped.setdefault(key, []).append(parameter)
    return [{"params": params, "scale": s, "begin": b} for (s, b), params in grouped.items()]


def layer_numbers(encoder: nn.Module) -> Mapping[str, int]:
    """Returns the layer number of every parameter, by name. 0 is the lowest.

    Uses timm's grouping if the network has one, otherwise the order of its top-level modules. Pooling over time is
    above the network's last layer.
    """
    network = getattr(encoder, "network", None)
    if network is None:
        return _by_parts(encoder)
    matcher = getattr(network, "group_matcher", None)
    inside = _by_parts(network)
    if matcher is not None:
        # Parameters outside timm's groups, such as a token or norm, count as the stem.
        inside = {**dict.fromkeys(inside, 0), **group_parameters(network, matcher(coarse=False), reverse=True)}
    top = max(inside.values(), default=0) + 1
    names = [name for name, _ in encoder.named_parameters()]
    return {name: int(inside.get(name.removeprefix("network."), top)) for name in names}


def _by_parts(module: nn.Module) -> dict[str, int]:
    parts = list(dict.fromkeys(name.partition(".")[0] for name, _ in module.named_parameters()))
    return {name: parts.index(name.partition(".")[0]) for name, _ in module.named_parameters()}
