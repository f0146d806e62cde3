"""A segment of zeros, for counting, timing and checking networks."""

from dataclasses import replace

import torch
from torch import Tensor

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
    training = backbone.training
    backbone.eval()
    for name in backbone.modalities:
        try:
            streams = Preparation(spec)(replace(whole, streams={name: whole.streams[name]}))
            backbone.encode(name, streams[name], whole.present[name])
        except RuntimeError as error:
            wanted = {
                "video": f"{spec.frames} frames of {spec.size} px: raise data.frames or data.size",
                "audio": f"{spec.seconds:g} s of sound: raise data.seconds",
                "signal": f"{whole.streams[name].shape[2]} samples: raise data.seconds",
            }[modality(name).kind]
            raise RequestError(
                f"encoder '{encoder_spec(backbone.spec, name).model}' of {name} cannot encode windows of {wanted}, "
                f"or choose a network with fewer strides ({str(error).splitlines()[0]})"
            ) from error
    backbone.train(training)
