"""What a backbone is made of, as plain data: configs and bundles hold it, and reading it needs no torch."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class EncoderSpec:
    """One modality's encoder."""

    model: str = "timm/test_convnext"
    """Network: `timm/NAME` (2-D, on each frame or on a log-mel spectrogram), `torchvision/NAME` (3-D video) or
    `conv1d` (signals)."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network's constructor. With `pretrained: true` timm downloads its own weights."""
    pooling: str = "gru"
    """How features are joined over time: `mean` (ignores their order), `gru` or `attention`."""
    stack: int = 1
    """Successive frames that a 2-D network takes at once, as channels (Simonyan & Zisserman 2014), so that it sees
    motion. 1: one frame at a time."""
    weights: str | None = None
    """Local state dict (.safetensors) to start from. Null: random weights."""
    frozen_norms: bool = False
    """Whether batch norms keep their statistics and scales, for batches too small to measure them."""

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
    """Encoders by modality, the width of their projections, and the fusion over them."""

    preset: str = field(default="tiny", metadata={"choices": tuple(PRESETS)})
    """Size of the encoders and the width, for what `encoders` and `width` do not set."""
    width: int | None = None
    """Width of every modality's projection and of the fused embedding. Null: that of the preset."""
    fusion: str = "softmax"
    """Fusion mechanism over the modalities' features."""
    fusion_arguments: dict[str, Any] = field(default_factory=dict)
    """The mechanism's own arguments, such as `quality: 3`: a gate sees each stream's noise, contrast and
    repetition."""
    modality_dropout: float = 0.0
    """Share of training clips in which random modalities are hidden from the fusion; a segment keeps at least one.
    0: none is hidden."""
    encoders: dict[str, EncoderSpec] = field(default_factory=dict)
    """Encoders by modality, or by kind: `video`, `audio` or `signal`. Empty: those of the preset."""
