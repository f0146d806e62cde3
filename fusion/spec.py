"""What a backbone is made of, as plain data: configs and bundles hold it, and reading it needs no torch."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class EncoderSpec:
    """One modality's encoder.

    `model`: `timm/NAME` (a 2-D network per frame, or on a log-mel spectrogram), `torchvision/NAME` (a 3-D
    video network) or `conv1d` (signals). `arguments` go to its constructor. `pooling` joins frame features
    over time: `mean`, `gru` or `attention`. `stack`: how many successive frames a 2-D network takes at once, as
    channels (the stacks of two-stream networks, Simonyan & Zisserman 2014): it then sees motion, at a fraction of
    the cost. `weights`: a local state dict (.safetensors) to start from.
    """

    model: str = "timm/test_convnext"
    arguments: dict[str, Any] = field(default_factory=dict)
    pooling: str = "gru"
    stack: int = 1
    weights: str | None = None


@dataclass
class BackboneSpec:
    """Encoders by modality, the width of their projections, and the fusion over them.

    `encoders` may name `video`, `audio` or `signal` for every modality of that kind, and a modality itself
    for its own. `fusion_arguments` of `quality: 2` let a gate see each stream's measured noise and contrast.
    `modality_dropout`: share of training clips in which every modality is hidden from the fusion with
    probability one half, except where that would hide all of a segment.
    """

    width: int = 128
    fusion: str = "softmax"
    fusion_arguments: dict[str, Any] = field(default_factory=dict)
    modality_dropout: float = 0.0
    encoders: dict[str, EncoderSpec] = field(default_factory=dict)
