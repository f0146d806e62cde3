"""What a backbone is made of, as plain data: configs and bundles hold it, and reading it needs no torch."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class EncoderSpec:
    """One modality's encoder.

    `model`: `timm/NAME` (a 2-D network per frame, or on a log-mel spectrogram), `torchvision/NAME` (a 3-D
    video network) or `conv1d` (signals). `arguments` go to its constructor. `pooling` joins features over time:
    `mean`, which is blind to order and, of sound, to the moment, `gru` or `attention`. `stack`: how many successive
    frames a 2-D network takes at once, as channels (the stacks of two-stream networks, Simonyan & Zisserman 2014):
    it then sees motion, at a fraction of the cost. `weights`: a local state dict (.safetensors) to start from;
    `arguments` of `pretrained: true` ask timm for its own. `frozen_norms`: batch norms keep their statistics and
    scales, for batches too small to measure them.
    """

    model: str = "timm/test_convnext"
    arguments: dict[str, Any] = field(default_factory=dict)
    pooling: str = "gru"
    stack: int = 1
    weights: str | None = None
    frozen_norms: bool = False

    def untrained(self) -> "EncoderSpec":
        """The same network without the weights it started from."""
        kept = {name: value for name, value in self.arguments.items() if not name.startswith("pretrained")}
        return replace(self, weights=None, arguments=kept)


@dataclass(frozen=True)
class Preset:
    """A width, and an encoder for each kind of modality."""

    width: int
    encoders: dict[str, EncoderSpec]


PRESETS = {
    "tiny": Preset(
        128,
        {
            "video": EncoderSpec("timm/test_convnext", pooling="gru"),
            "audio": EncoderSpec("timm/test_convnext"),
            "signal": EncoderSpec("conv1d", pooling="mean"),
        },
    ),
    "small": Preset(
        256,
        {
            "video": EncoderSpec("timm/convnext_atto", pooling="gru"),
            "audio": EncoderSpec("timm/convnext_atto"),
            "signal": EncoderSpec("conv1d", {"widths": [64, 128, 256]}, pooling="mean"),
        },
    ),
    "base": Preset(
        512,
        {
            "video": EncoderSpec("timm/convnext_tiny", pooling="attention"),
            "audio": EncoderSpec("timm/convnext_tiny"),
            "signal": EncoderSpec("conv1d", {"widths": [128, 256, 512]}, pooling="attention"),
        },
    ),
}


@dataclass
class BackboneSpec:
    """Encoders by modality, the width of their projections, and the fusion over them.

    `preset`: the size, `tiny`, `small` or `base`, where `width` and `encoders` say nothing else. `encoders` may name
    `video`, `audio` or `signal` for every modality of that kind, and a modality itself for its own.
    `fusion_arguments` of `quality: 2` let a gate see each stream's measured noise and contrast, of `quality: 3` also
    how much of it repeats itself. `modality_dropout`:
    share of training clips in which every modality is hidden from the fusion with probability one half, except
    where that would hide all of a segment.
    """

    preset: str = field(default="tiny", metadata={"choices": tuple(PRESETS)})
    width: int | None = None
    fusion: str = "softmax"
    fusion_arguments: dict[str, Any] = field(default_factory=dict)
    modality_dropout: float = 0.0
    encoders: dict[str, EncoderSpec] = field(default_factory=dict)
