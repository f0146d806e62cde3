"""The parts of a backbone as plain data, for configs and bundles. Reading it needs no torch."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..shards.errors import RequestError, choice_error
from ..shards.modality import MODALITIES, modality
from .own_classes import is_path, package_of


@dataclass(frozen=True)
class ResolvedEncoder:
    """An encoder spec with every field set. Fields as in `EncoderSpec`."""

    model: str
    arguments: dict[str, Any]
    pooling: str
    stack: int
    pretrained: bool
    weights: str | None
    frozen_norms: bool


@dataclass
class EncoderSpec:
    """One modality's encoder. A field of null is inherited (`encoder_of`)."""

    model: str | None = None
    """The network: `timm/NAME` (a 2-D network per frame, or on a log-mel spectrogram), `torchvision/NAME` (a 3-D
    video network), `conv1d` (signals), or a class of your own, `package.module:Class`."""

    arguments: dict[str, Any] | None = None
    """Arguments of the network's constructor. They belong to `model`: another `model` does not inherit them."""

    pooling: str | None = None
    """What joins features over time: `mean`, which is blind to order and, of sound, to the moment, `gru` or
    `attention`. Torchvision networks pool time themselves."""

    stack: int | None = None
    """How many successive frames a 2-D network takes at once, as channels (Simonyan & Zisserman 2014). It then sees
    motion, at a fraction of the cost."""

    pretrained: bool | None = None
    """Start from the weights that timm or torchvision publishes for `model`. `false` starts from random weights."""

    weights: str | None = None
    """Start from a local file with the weights of `model` (.safetensors or .pth), in place of `pretrained`."""

    frozen_norms: bool | None = None
    """Batch norms keep their statistics and scales, for batches too small to measure them."""

    def over(self, below: "EncoderSpec") -> "EncoderSpec":
        """This spec, with missing fields taken from `below`.

        Arguments and weights belong to a network: another `model` inherits neither. `pretrained` and `weights` are
        alternatives: a spec that gives one of them inherits neither. Raises `RequestError` if it gives both.
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
        """All fields, with `DEFAULTS` for those that are missing."""
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
        # By which timm reads weights.
        reading = ("pretrained", "checkpoint_path")
        kept = self.arguments and {k: value for k, value in self.arguments.items() if not k.startswith(reading)}
        return replace(self, arguments=kept, pretrained=None, weights=None)

    def _plain(self) -> "EncoderSpec":
        """Moves `pretrained` out of the arguments, where configs may give it because timm has it there."""
        if not self.arguments or "pretrained" not in self.arguments:
            return self
        kept = {name: value for name, value in self.arguments.items() if name != "pretrained"}
        chosen = self.pretrained is not None or self.weights is not None
        return replace(
            self, arguments=kept, pretrained=self.pretrained if chosen else bool(self.arguments["pretrained"])
        )


DEFAULTS = EncoderSpec("timm/test_convnext", {}, "gru", 1, frozen_norms=False)


@dataclass(frozen=True)
class Preset:
    """A width, and one encoder per kind of modality."""

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
    """Fusion mechanism over the modalities' features: a name, or a class of your own, `package.module:Class`."""
    fusion_arguments: dict[str, Any] = field(default_factory=dict)
    """The mechanism's own arguments, such as `quality: 3`: a gate sees each stream's noise, contrast and
    repetition."""
    modality_dropout: float = 0.0
    """Share of training clips in which random modalities are hidden from the fusion; a segment keeps at least one.
    0: none is hidden."""
    encoders: dict[str, EncoderSpec] = field(default_factory=dict)
    """Encoders by modality, or by kind: `video`, `audio` or `signal`. Empty: those of the preset."""


def own_packages(spec: BackboneSpec | None, *names: str | None) -> list[str]:
    """The packages that class paths of the spec, and other `names` of a config, come from."""
    given = [*names]
    if spec is not None:
        given += [spec.fusion, *(encoder.model for encoder in spec.encoders.values())]
    return sorted({package_of(name) for name in given if name and is_path(name)})


def encoder_of(spec: BackboneSpec, name: str) -> EncoderSpec:
    """The encoder of a modality or of a kind (`video`, `audio`, `signal`): what `encoders` gives over the preset.

    Three layers, the most specific last: the preset's for the kind, the kind's, the modality's. Raises `RequestError`
    for an unknown preset, and for an unknown name under `encoders`.
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
