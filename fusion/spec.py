"""The parts of a backbone as plain data, for configs and bundles. Nothing here needs torch."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..shards.errors import RequestError, choice_error
from ..shards.modality import MODALITIES, modality
from .own_classes import is_path, package_of

# Arguments by which timm reads weights.
PUBLISHED = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn")
READING = frozenset({*PUBLISHED, "checkpoint_path", "cache_dir"})


@dataclass(frozen=True)
class ResolvedEncoder:
    """An `EncoderSpec` with every field set."""

    model: str
    arguments: dict[str, Any]
    pooling: str
    stack: int
    pretrained: bool
    weights: str | None
    frozen_norms: bool


@dataclass
class EncoderSpec:
    """The encoder of one modality. A field that is null is inherited (see `encoder_of`)."""

    model: str | None = None
    """The network: `timm/NAME` (a 2-D network on each frame, or on a log-mel spectrogram), `torchvision/NAME` (a 3-D
    video network), `conv1d` (signals), or your own class, `package.module:Class`."""

    arguments: dict[str, Any] | None = None
    """Arguments of the network's constructor. A spec with another `model` does not inherit them."""

    pooling: str | None = None
    """Pooling over time: `mean`, `gru` or `attention`. `mean` ignores the order of frames, and when a sound occurs.
    Torchvision networks pool time themselves."""

    stack: int | None = None
    """Number of successive frames stacked as the channels of one input of a 2-D network (Simonyan & Zisserman 2014).
    The network then sees motion, and runs once per stack instead of once per frame."""

    pretrained: bool | None = None
    """Start from the weights that timm or torchvision publishes for `model`. `false` starts from random weights."""

    weights: str | None = None
    """Start from a local file with the weights of `model` (.safetensors or .pth), instead of `pretrained`."""

    frozen_norms: bool | None = None
    """Freeze the statistics, scales and shifts of batch norms. Useful when batches are too small to estimate them."""

    def over(self, below: "EncoderSpec") -> "EncoderSpec":
        """This spec, with missing fields taken from `below`.

        A spec with another `model` inherits neither arguments nor weights. `pretrained` and `weights` are
        alternatives: a spec that sets one of them inherits neither. Raises `RequestError` if it sets both.

        >>> spec = EncoderSpec(pooling="mean").over(EncoderSpec("conv1d", {"widths": [64]}, pooling="gru"))
        >>> spec.model, spec.arguments, spec.pooling
        ('conv1d', {'widths': [64]}, 'mean')
        """
        mine, below = self._plain(), below._plain()
        if mine.pretrained and mine.weights:
            raise RequestError(
                f"encoder '{mine.model or below.model}' has both pretrained: true and weights: '{mine.weights}': "
                "give one of them"
            )
        if mine.model not in (None, below.model):
            below = replace(below, arguments={}, pretrained=None, weights=None)
        elif mine.pretrained is not None or mine.weights is not None:
            below = replace(below, pretrained=None, weights=None)
        given = {entry.name: getattr(mine, entry.name) for entry in fields(mine)}
        return replace(below, **{name: value for name, value in given.items() if value is not None})

    def resolved(self) -> ResolvedEncoder:
        """This spec with missing fields taken from `DEFAULTS`."""
        spec = self.over(DEFAULTS)
        return ResolvedEncoder(
            spec.model or "",
            spec.arguments or {},
            spec.pooling or "",
            spec.stack or 1,
            bool(spec.pretrained),
            spec.weights,
            bool(spec.frozen_norms),
        )

    def untrained(self) -> "EncoderSpec":
        """The same network, without initial weights."""
        kept = self.arguments and {key: value for key, value in self.arguments.items() if key not in READING}
        return replace(self, arguments=kept, pretrained=None, weights=None)

    def _plain(self) -> "EncoderSpec":
        """The spec with `pretrained` moved from the arguments to its field. timm has it as an argument."""
        if not self.arguments or "pretrained" not in self.arguments:
            return self
        kept = {name: value for name, value in self.arguments.items() if name != "pretrained"}
        chosen = self.pretrained is not None or self.weights is not None
        return replace(
            self, arguments=kept, pretrained=self.pretrained if chosen else bool(self.arguments["pretrained"])
        )


DEFAULTS = EncoderSpec("timm/test_resnet", {}, "gru", 1, frozen_norms=False)


@dataclass(frozen=True)
class Preset:
    """A model size.

    pixels: side of the pictures in training.
    width: of every projection and of the fused embedding.
    encoders: by kind of modality (`video`, `audio`, `signal`). Their `stack` is 1, because it depends on the number
        of frames.
    """

    pixels: int
    width: int
    encoders: dict[str, EncoderSpec]


PRESETS = {
    "tiny": Preset(
        64,
        128,
        {
            "video": EncoderSpec("timm/test_resnet", pooling="gru"),
            # Slimmer than the video network, with more positions in time.
            "audio": EncoderSpec(
                "timm/test_resnet", {"channels": [24, 32, 48, 96], "stem_width": 8, "output_stride": 16}, "gru"
            ),
            "signal": EncoderSpec("conv1d", {"widths": [64, 128, 256]}, "gru"),
        },
    ),
    "small": Preset(
        96,
        256,
        {
            "video": EncoderSpec("timm/resnet10t", pooling="gru"),
            "audio": EncoderSpec("timm/resnet10t", {"output_stride": 16}, "gru"),
            "signal": EncoderSpec("conv1d", {"widths": [128, 256, 512]}, "gru"),
        },
    ),
    "base": Preset(
        112,
        512,
        {
            "video": EncoderSpec("timm/resnet18", pooling="gru"),
            "audio": EncoderSpec("timm/resnet18", {"output_stride": 16}, "gru"),
            "signal": EncoderSpec("conv1d", {"widths": [256, 512, 512]}, "gru"),
        },
    ),
}


@dataclass
class BackboneSpec:
    """The encoders by modality, the width of their projections, and the fusion."""

    preset: str = field(default="tiny", metadata={"choices": tuple(PRESETS)})
    """Size of the model: encoders and width, where `encoders` and `width` do not set them."""
    width: int | None = None
    """Width of every modality's projection and of the fused embedding. Null: that of the preset."""
    fusion: str = "softmax"
    """Fusion mechanism: a name, or your own class, `package.module:Class`."""
    fusion_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the fusion mechanism. With `quality: 3` a gate also sees the noise, contrast and repetition of
    each stream."""
    modality_dropout: float = 0.0
    """Share of training clips in which each modality is hidden from the fusion with probability 1/2. A segment that
    would lose all keeps all. 0 hides none."""
    encoders: dict[str, EncoderSpec] = field(default_factory=dict)
    """Encoders by modality or by kind (`video`, `audio` or `signal`). Default: those of the preset."""


def own_packages(spec: BackboneSpec | None, *names: str | None) -> list[str]:
    """The packages of the class paths in `spec` and in other `names` of a config.

    >>> own_packages(BackboneSpec(fusion="mypackage.gates:MyGate"), "clip_order", "other.tasks:Mine")
    ['mypackage', 'other']
    """
    given = [*names]
    if spec is not None:
        given += [spec.fusion, *(encoder.model for encoder in spec.encoders.values())]
    return sorted({package_of(name) for name in given if name and is_path(name)})


def encoder_of(spec: BackboneSpec, name: str) -> EncoderSpec:
    """The encoder of a modality or of a kind (`video`, `audio`, `signal`).

    Each field comes from the most specific spec that sets it: `encoders` of the modality, `encoders` of the kind, the
    preset. Raises `RequestError` for an unknown preset, and for an unknown name under `encoders`.

    >>> encoder_of(BackboneSpec("small", encoders={"video": EncoderSpec(pooling="mean")}), "rgb").model
    'timm/resnet10t'
    """
    if spec.preset not in PRESETS:
        raise choice_error("preset", spec.preset, PRESETS)
    kinds = PRESETS[spec.preset].encoders
    for key in spec.encoders:
        if key not in MODALITIES and key not in kinds:
            raise choice_error("modality or kind under 'encoders'", key, {*MODALITIES, *kinds})
    kind = name if name in kinds else modality(name).kind
    found = kinds[kind].over(DEFAULTS)
    for key in dict.fromkeys((kind, name)):
        found = spec.encoders.get(key, EncoderSpec()).over(found)
    return found
