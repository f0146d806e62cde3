"""A segment of zeros, for counting, timing and checking networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..shards.batch import Batch
from ..shards.clip_spec import ClipSpec
from ..shards.errors import RequestError
from ..shards.modality import modality
from ..shards.transforms import Preparation
from .backbone import Backbone, encoder_spec


def blank_segment(modalities: tuple[str, ...], spec: ClipSpec) -> Batch:
    """One segment of zeros (B = K = 1), shaped as the clip stream delivers it, with every modality present."""
    streams: dict[str, Tensor] = {}
    for name in modalities:
        entry = modality(name)
        if entry.kind == "video":
            streams[name] = torch.zeros(1, 1, spec.frames, entry.channels, spec.size, spec.size)
        elif entry.kind == "audio":
            streams[name] = torch.zeros(1, 1, round(spec.seconds * spec.sample_rate))
        else:
            rate = entry.rate or spec.fps
            streams[name] = torch.zeros(1, 1, round(spec.seconds * rate), entry.channels)
    present = {name: torch.ones(1, 1, dtype=torch.bool) for name in modalities}
    return Batch(streams, present, ["blank"], torch.zeros(1, 1), valid=torch.ones(1, dtype=torch.bool))


@torch.no_grad()
def check_windows(backbone: Backbone, spec: ClipSpec) -> None:
    """Raises `RequestError` if windows of `spec` are too short or too small for an encoder.

    One blank segment is encoded to find out, because the smallest input depends on the layers of the network.
    """
    whole = blank_segment(backbone.modalities, spec)
    with in_evaluation(backbone):
        for name in backbone.modalities:
            _check_window(backbone, spec, whole, name)


@contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """Sets a module to evaluation, and each of its parts back to its mode at the end, also after an error."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _check_window(backbone: Backbone, spec: ClipSpec, whole: Batch, name: str) -> None:
    try:
        streams = Preparation(spec)(replace(whole, streams={name: whole.streams[name]}))
        backbone.encode(name, streams[name], whole.present[name])
    except (RequestError, MemoryError):
        raise
    # Networks check their input with errors of many kinds: assertions, indices, divisions by 0.
    except Exception as error:
        wanted = {
            "video": f"{spec.frames} frames of {spec.size} px: raise data.frames or data.size",
            "audio": f"{spec.seconds:g} s of sound: raise data.seconds",
            "signal": f"{whole.streams[name].shape[2]} samples: raise data.seconds",
        }[modality(name).kind]
        raise RequestError(
            f"encoder '{encoder_spec(backbone.spec, name).model}' of {name} cannot encode windows of {wanted}, "
            f"or choose a network with fewer strides ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
