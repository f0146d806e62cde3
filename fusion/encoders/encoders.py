"""Encoders: one feature vector per segment of a modality."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import video as video_models

from ...shards.errors import RequestError, choice_error
from ...shards.modality import Modality
from ..own_classes import is_path, load_class
from ..spec import PUBLISHED, EncoderSpec, ResolvedEncoder
from .pooling import build_pooling
from .weights import adapt_channels, load_known_weights

VIDEO_MODELS = (
    "mc3_18",
    "mvit_v1_b",
    "mvit_v2_s",
    "r2plus1d_18",
    "r3d_18",
    "s3d",
    "swin3d_b",
    "swin3d_s",
    "swin3d_t",
)


class PretrainableEncoder(nn.Module):
    """Base of encoders with `frozen_norms`: if set, batch norms keep their loaded statistics, scales and shifts."""

    frozen_norms = False

    def train(self, mode: bool = True) -> "PretrainableEncoder":
        super().train(mode)
        if self.frozen_norms:
            for part in self.modules():
                if isinstance(part, _BatchNorm):
                    part.eval().requires_grad_(False)
        return self


class FrameEncoder(PretrainableEncoder):
    """A timm image network on each frame (or stack of frames), pooled over time: (N, T, C, H, W) -> (N, D)."""

    def __init__(self, spec: EncoderSpec, name: str, channels: int) -> None:
        super().__init__()
        resolved = spec.resolved()
        self.stack = resolved.stack
        self.network, self.features = _create_timm(name, channels * resolved.stack, resolved)
        self.pooling = build_pooling(resolved.pooling, self.features)

    def forward(self, video: Tensor) -> Tensor:
        return self.with_tokens(video)[0]

    def with_tokens(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature (N, D) and the features of all frames or stacks (N, T / stack, D).

        Raises `RequestError` if the number of frames is not a multiple of `stack`.
        """
        rows, frames, channels, height, width = video.shape
        if frames % self.stack:
            raise RequestError(
                f"data.frames of {frames} cannot be divided into stacks of {self.stack} frames: give a multiple of "
                f"{self.stack}"
            )
        pictures = video.reshape(-1, self.stack * channels, height, width)
        # Channels last doubles the speed of small convolutions on a CPU and costs nothing elsewhere.
        features = self.network(pictures.contiguous(memory_format=torch.channels_last))
        sequence = features.view(rows, frames // self.stack, -1)
        return self.pooling(sequence), sequence


class VideoEncoder(PretrainableEncoder):
    """A torchvision 3-D network with a stem for the modality's channels: (N, T, C, H, W) -> (N, D)."""

    def __init__(self, spec: EncoderSpec, name: str, channels: int) -> None:
        super().__init__()
        if name not in VIDEO_MODELS:
            raise choice_error("torchvision video network", name, VIDEO_MODELS)
        resolved = spec.resolved()
        try:
            self.network = getattr(video_models, name)(weights=None, **resolved.arguments)
        except TypeError as error:
            raise RequestError(
                f"torchvision network '{name}' does not accept the arguments {resolved.arguments}: {error}"
            ) from error
        head = head_name(self.network)
        linear = [m for m in getattr(self.network, head).modules() if isinstance(m, nn.Linear | nn.Conv3d)][-1]
        self.features: int = linear.in_features if isinstance(linear, nn.Linear) else linear.in_channels
        setattr(self.network, head, nn.Identity())
        if isinstance(getattr(self.network, "avgpool", None), nn.AvgPool3d):
            # The pooling window of S3D (2 x 7 x 7) would need at least 9 frames of 193 pixels.
            self.network.avgpool = nn.AdaptiveAvgPool3d(1)
        _adapt_stem(self.network, channels)
        load_known_weights(self.network, resolved, channels)

    def forward(self, video: Tensor) -> Tensor:
        return self.network(video.transpose(1, 2))

    def with_tokens(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature (N, D), and the same as one token (N, 1, D): these networks pool time themselves."""
        feature = self(video)
        return feature, feature.unsqueeze(1)


class SpectrogramEncoder(PretrainableEncoder):
    """A timm image network on log-mel spectrograms, pooled over time: (N, 1, mels, frames) -> (N, D).

    With pooling `mean`, the network pools time and frequency itself, which loses most of the information on when a
    sound occurs. Other poolings apply to the columns of a convolutional network's last feature map. Transformers, and
    networks that widen their features after pooling, always use the pooling of the network.
    """

    def __init__(self, spec: EncoderSpec, name: str) -> None:
        super().__init__()
        resolved = spec.resolved()
        self.network, self.features = _create_timm(name, 1, resolved)
        columns = not hasattr(self.network, "patch_embed") and self.network.num_features == self.features
        pooling = resolved.pooling
        self.pooling = build_pooling(pooling, self.features) if columns and pooling != "mean" else None

    def forward(self, spectrogram: Tensor) -> Tensor:
        if self.pooling is None:
            return self.network(spectrogram.contiguous(memory_format=torch.channels_last))
        return self.with_tokens(spectrogram)[0]

    def with_tokens(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature (N, D), and tokens (N, L, D): columns of the last feature map, mean over frequency."""
        network: Any = self.network
        features = network.forward_features(spectrogram.contiguous(memory_format=torch.channels_last))
        tokens = features.mean(dim=2).transpose(1, 2) if features.dim() == 4 else features
        if self.pooling is not None:
            return self.pooling(tokens), tokens
        pooled = network.forward_head(features)
        if tokens.shape[-1] != self.features:
            # Networks that widen their features after pooling, or keep channels last, have no columns of width D.
            tokens = pooled.unsqueeze(1)
        return pooled, tokens


class SignalEncoder(nn.Module):
    """Strided 1-D convolutions with group norm, pooled over time: (N, samples, C) -> (N, D).

    Its argument `widths` gives the channels of each stage. Each stage halves the rate.
    """

    def __init__(self, spec: EncoderSpec, channels: int) -> None:
        super().__init__()
        resolved = spec.resolved()
        if resolved.pretrained or resolved.weights:
            raise RequestError("encoder 'conv1d' has no published weights: give neither pretrained nor weights")
        for argument in resolved.arguments:
            if argument != "widths":
                raise choice_error("argument of encoder conv1d", argument, ["widths"])
        widths = [int(w) for w in resolved.arguments.get("widths", (32, 64, 128))]
        stages: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            stages += [nn.Conv1d(before, after, 5, stride=2, padding=2), nn.GroupNorm(1, after), nn.GELU()]
        self.network = nn.Sequential(*stages)
        self.features: int = widths[-1]
        self.pooling = build_pooling(resolved.pooling, self.features)

    def forward(self, signal: Tensor) -> Tensor:
        return self.with_tokens(signal)[0]

    def with_tokens(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature (N, D), and the features over time (N, samples / 2^stages, D)."""
        sequence = self.network(signal.transpose(1, 2)).transpose(1, 2)
        return self.pooling(sequence), sequence


class StoredFeatures(nn.Module):
    """Returns stored features instead of encoding. Input (N, 1 + L, D): the pooled feature, then its tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width

    def forward(self, stored: Tensor) -> Tensor:
        return stored[:, 0]

    def with_tokens(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature (N, D) and its tokens (N, L, D)."""
        return stored[:, 0], stored[:, 1:]


@dataclass(frozen=True)
class Family:
    """Encoders whose `model` has the same prefix.

    build: builds an encoder from a modality, a spec and the `NAME` of `PREFIX/NAME`. The encoder has an attribute
        `features` and maps prepared rows (N, ...) to features (N, features). It may have a method `with_tokens`,
        which also returns a sequence (N, L, features).
    kinds: kinds of modality that it encodes.
    named: whether a name follows the prefix.
    """

    build: Callable[[Modality, EncoderSpec, str], nn.Module]
    kinds: tuple[str, ...]
    named: bool = True


def _timm(entry: Modality, spec: EncoderSpec, name: str) -> nn.Module:
    return SpectrogramEncoder(spec, name) if entry.kind == "audio" else FrameEncoder(spec, name, entry.channels)


def _torchvision(entry: Modality, spec: EncoderSpec, name: str) -> nn.Module:
    return VideoEncoder(spec, name, entry.channels)


def _conv1d(entry: Modality, spec: EncoderSpec, name: str) -> nn.Module:
    return SignalEncoder(spec, entry.channels)


def _stored(entry: Modality, spec: EncoderSpec, name: str) -> nn.Module:
    if not name.isdecimal():
        raise RequestError(f"encoder 'stored/{name}' gives no width: write stored/WIDTH, such as stored/128")
    return StoredFeatures(int(name))


ENCODERS: dict[str, Family] = {
    "timm": Family(_timm, ("video", "audio")),
    "torchvision": Family(_torchvision, ("video",)),
    "conv1d": Family(_conv1d, ("signal",), named=False),
    "stored": Family(_stored, ("video", "audio", "signal")),
}


def build_encoder(entry: Modality, spec: EncoderSpec) -> nn.Module:
    """Builds the encoder `spec` for a modality.

    entry: the modality.
    spec: `spec.model` is `PREFIX/NAME` with a prefix of `ENCODERS`, or a class path `package.module:Class`. A class
        is built as `Class(entry, **spec.arguments)`.

    Raises `RequestError` for an unknown network, for a network that cannot encode the modality, and for weights that
    do not fit.
    """
    resolved = spec.resolved()
    if is_path(resolved.model):
        return _own_encoder(entry, resolved)
    prefix, _, name = resolved.model.partition("/")
    family = ENCODERS.get(prefix)
    if family is None or entry.kind not in family.kinds:
        fit = [
            f"{key}/NAME" if other.named else key
            for key, other in ENCODERS.items()
            if entry.kind in other.kinds and key != "stored"
        ]
        raise RequestError(
            f"encoder '{resolved.model}' cannot encode {entry.kind} modality '{entry.name}': choose "
            f"{' or '.join(fit)}"
        )
    encoder = family.build(entry, spec, name)
    if isinstance(encoder, PretrainableEncoder):
        encoder.frozen_norms = resolved.frozen_norms
        encoder.train()
    return encoder


def check_encoder(module: nn.Module, name: str) -> int:
    """The width of the features that `module` returns. `name`: its modality, for error messages.

    Raises `RequestError` if the module has no attribute `features`.
    """
    width = getattr(module, "features", None)
    if not isinstance(width, int):
        raise RequestError(
            f"encoder {type(module).__name__} of '{name}' has no attribute `features`: set it to the width (int) of "
            "the features that forward returns"
        )
    return width


def _own_encoder(entry: Modality, spec: ResolvedEncoder) -> nn.Module:
    kind = load_class(spec.model, nn.Module, "encoder")
    if spec.pretrained:
        raise RequestError(f"encoder '{spec.model}' has no published weights: give weights: FILE, or neither")
    if spec.frozen_norms:
        raise RequestError(f"encoder '{spec.model}' has no frozen_norms: freeze its norms in its method `train`")
    try:
        encoder: nn.Module = kind(entry, **spec.arguments)
    except TypeError as error:
        raise RequestError(
            f"encoder '{spec.model}' does not accept a modality and the arguments {spec.arguments}: {error}"
        ) from error
    check_encoder(encoder, entry.name)
    load_known_weights(encoder, spec, entry.channels)
    return encoder


def head_name(network: nn.Module) -> str:
    """The attribute of a torchvision video network that holds its classifier."""
    return next(part for part in ("fc", "classifier", "head") if hasattr(network, part))


def _create_timm(name: str, channels: int, spec: ResolvedEncoder) -> tuple[nn.Module, int]:
    """The network without its classifier, and the width of its features."""
    if not timm.is_model(name):
        raise choice_error("timm network", name, timm.list_models())
    arguments = {key: value for key, value in spec.arguments.items() if key not in PUBLISHED}
    try:
        network = timm.create_model(name, in_chans=channels, num_classes=0, **arguments)
    except TypeError as error:
        raise RequestError(f"timm network '{name}' does not accept the arguments {arguments}: {error}") from error
    load_known_weights(network, spec, channels)
    # Some networks (MobileNetV3, VGG) widen their features between pooling and classifier.
    width: Any = getattr(network, "head_hidden_size", None) or network.num_features
    return network, int(width)


def _adapt_stem(network: nn.Module, channels: int) -> None:
    """Rebuilds the first 3-D convolution for `channels` by repeating its mean filter, which keeps pretraining."""
    if channels == 3:
        return
    path, stem = next((p, m) for p, m in network.named_modules() if isinstance(m, nn.Conv3d))
    adapted = nn.Conv3d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # pyright: ignore[reportArgumentType]
        stem.stride,  # pyright: ignore[reportArgumentType]
        stem.padding,  # pyright: ignore[reportArgumentType]
        bias=stem.bias is not None,
    )
    with torch.no_grad():
        adapted.weight.copy_(adapt_channels(stem.weight, channels, channels))
        if adapted.bias is not None and stem.bias is not None:
            adapted.bias.copy_(stem.bias)
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, adapted)
