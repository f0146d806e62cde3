"""The trained network of one modality, as a state dict for timm or torchvision."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ...shards.clip_spec import ClipSpec
from ...shards.errors import RequestError, choice_error
from ...shards.index.whole_file import whole_file
from ...shards.modality import modality
from ...shards.transforms import LOG_MEL_MEAN, LOG_MEL_STD, MEL_BANDS
from ..backbone import encoder_spec
from ..encoders.encoders import VideoEncoder, head_name
from .bundle import Bundle

SUFFIX = ".safetensors"


def save_single(bundle: Bundle, name: str, path: Path) -> list[str]:
    """Writes the network of one modality; returns lines of Python that load it without modalgate.

    bundle: the model.
    name: modality of the network.
    path: file to write, ending in `.safetensors`.

    The network encodes frames (timm), clips (torchvision) or log-mel spectrograms (timm on audio). Pooling over time
    and the projection before the fusion are not included. The returned lines use timm or torchvision, torch and
    safetensors. Raises `RequestError` for a modality that the model lacks, for a network of another library, and for
    a path with another suffix.
    """
    backbone = bundle.backbone
    if name not in backbone.modalities:
        raise choice_error("modality of this model", name, backbone.modalities)
    if path.suffix != SUFFIX:
        raise RequestError(f"'{path}' is not a {SUFFIX} file: give --modality {name} a name that ends in {SUFFIX}")
    spec = encoder_spec(backbone.spec, name).untrained().resolved()
    family, _, model = spec.model.partition("/")
    if family not in ("timm", "torchvision"):
        raise RequestError(
            f"the encoder of {name} is '{spec.model}', which is neither a timm nor a torchvision network: export the "
            "whole bundle"
        )
    encoder = backbone.encoders[name]
    network = encoder.network
    assert isinstance(network, nn.Module)
    arguments = "".join(f", {key}={_literal(value)}" for key, value in spec.arguments.items())
    if family == "timm":
        channels = modality(name).channels * (spec.stack if modality(name).kind == "video" else 1)
        lines = [f"network = timm.create_model({_literal(model)}, in_chans={channels}, num_classes=0{arguments})"]
    else:
        assert isinstance(encoder, VideoEncoder)
        lines = _video_lines(encoder, model, arguments)
    lines.append(f"network.load_state_dict(safetensors.torch.load_file({_literal(path.name)}), strict=True)")
    lines.append(f"features = network.eval()(inputs)  # {input_form(bundle.spec, name, spec.stack, family)}")
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    facts = {"model": spec.model, "modality": name, "arguments": json.dumps(spec.arguments), "use": "\n".join(lines)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        save_file(state, partial, metadata={"format": "pt"} | facts)
    return lines


def input_form(spec: ClipSpec, name: str, stack: int = 1, family: str = "timm") -> str:
    """The network's input in words: its shape, and how stored values are normalised.

    spec: how segments are prepared.
    name: modality of the network.
    stack: frames per stack of a timm network.
    family: `timm` or `torchvision`.
    """
    entry, size = modality(name), spec.size
    if entry.kind == "audio":
        return (
            f"(N, 1, {MEL_BANDS}, T): (ln(mel power + 1e-6) - {LOG_MEL_MEAN:g}) / {LOG_MEL_STD:g}, windows of 25 ms "
            "every 10 ms"
        )
    mean, std = spec.statistics[name].mean, spec.statistics[name].std
    if entry.flow_of:
        centre, spread = [0.0] * len(mean), list(std)
    else:
        centre, spread = list(mean), list(std)
    values = f"({entry.unit} - {_numbers(centre)}) / {_numbers(spread)}"
    if family == "torchvision":
        return f"(N, {entry.channels}, {spec.frames}, {size}, {size}): {values}"
    return f"(N, {entry.channels * stack}, {size}, {size}): {values}"


def _video_lines(encoder: VideoEncoder, model: str, arguments: str) -> list[str]:
    """Lines that build the network without its classifier, and with the stem for its number of channels."""
    network = encoder.network
    lines = [
        f"network = torchvision.models.video.{model}({arguments.removeprefix(', ')})",
        f"network.{head_name(network)} = torch.nn.Identity()",
    ]
    path, stem = next((place, part) for place, part in network.named_modules() if isinstance(part, nn.Conv3d))
    if stem.in_channels != 3:
        parent, _, child = path.rpartition(".")
        shape = (
            f"{stem.in_channels}, {stem.out_channels}, {stem.kernel_size}, {stem.stride}, {stem.padding}, "
            f"bias={stem.bias is not None}"
        )
        place = f"network.get_submodule({_literal(parent)})" if parent else "network"
        lines.append(f"setattr({place}, {_literal(child)}, torch.nn.Conv3d({shape}))")
    if isinstance(getattr(network, "avgpool", None), nn.AdaptiveAvgPool3d) and model == "s3d":
        lines.append("network.avgpool = torch.nn.AdaptiveAvgPool3d(1)")
    return lines


def _literal(value: object) -> str:
    """The value as a Python literal, strings in double quotes."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _numbers(values: list[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in torch.tensor(values).tolist()) + "]"
