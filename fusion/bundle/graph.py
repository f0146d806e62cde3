"""A bundle's model as one function of tensors of fixed rank, for `torch.export` and ONNX.

The function takes stored media (bytes, samples), prepares them, encodes all rows and masks the absent ones. No step
depends on the values of the data, so any number of rows and any subset of modalities work.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...shards.clip_spec import ClipSpec
from ...shards.modality import modality
from ...shards.transforms import LOG_MEL_MEAN, LOG_MEL_STD, Preparation
from ..backbone import Backbone, Part
from ..classifier import Classifier
from .bundle import Bundle


class GraphModel(nn.Module):
    """`forward(present, *streams)` -> (embedding, weights) or (probabilities, embedding, weights).

    bundle: the model to run.
    encoder_only: omit the probabilities of a classifier.

    `present` (B, M) is bool. `streams` follow the order of `modalities` and hold one window per row, as stored: video
    (B, T, C, H, W) bytes (depth uint16), audio (B, N) in [-1, 1], signals (B, N, C). Streams are ignored where
    `present` is false. Returns embeddings (B, D), gate weights (B, M) and, of a classifier, probabilities (B, C).
    """

    def __init__(self, bundle: Bundle, encoder_only: bool = False) -> None:
        super().__init__()
        classifier = isinstance(bundle.model, Classifier) and not encoder_only
        self.model: Backbone | Classifier = bundle.model if classifier else bundle.backbone
        self.preparation = Preparation(bundle.spec)
        self.log_mel = LogMel(self.preparation, bundle.spec)
        self.eval()

    @property
    def backbone(self) -> Backbone:
        return self.model.backbone if isinstance(self.model, Classifier) else self.model

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.backbone.modalities

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that `forward` returns."""
        return (*(("probabilities",) if isinstance(self.model, Classifier) else ()), "embedding", "weights")

    def forward(self, present: Tensor, *streams: Tensor) -> tuple[Tensor, ...]:
        backbone = self.backbone
        masks = {name: present[:, number : number + 1] for number, name in enumerate(self.modalities)}
        prepared = {name: self._prepare(name, stream) for name, stream in zip(self.modalities, streams, strict=True)}
        parts = {name: self._encode(name, prepared[name], masks[name]) for name in self.modalities}
        quality = backbone.quality_of({name: stream.unsqueeze(1) for name, stream in prepared.items()}, masks)
        encoded = backbone.fuse(parts, masks, present[:, :1].float(), quality)
        if isinstance(self.model, Classifier):
            scored = self.model.score(encoded)
            probabilities = self.model.probabilities(scored.logits[:, 0])
            return probabilities, scored.encoded.embedding[:, 0], scored.encoded.weights[:, 0]
        return encoded.embedding[:, 0], encoded.weights[:, 0]

    def _prepare(self, name: str, stream: Tensor) -> Tensor:
        if modality(name).kind == "audio":
            return self.log_mel(stream)
        return self.preparation.normalise(name, stream)

    def _encode(self, name: str, stream: Tensor, mask: Tensor) -> Part:
        backbone = self.backbone
        encoder: Any = backbone.encoders[name]
        project = backbone.projections[name]
        if not backbone.token_projections:
            return Part(_where(mask, project(encoder(stream)).unsqueeze(1)))
        pooled, tokens = encoder.with_tokens(stream)
        pooled = project(pooled)
        tokens = torch.cat([pooled.unsqueeze(1), backbone.token_projections[name](tokens)], dim=1)
        return Part(_where(mask, pooled.unsqueeze(1)), _where(mask, tokens.unsqueeze(1)))


class LogMel(nn.Module):
    """`Preparation.log_mel` from (B, N) samples to (B, 1, mels, frames), with the Fourier transform as a convolution.

    All runtimes support convolutions. Not all support complex numbers, and quantisers skip them.
    """

    waves: Tensor
    bands: Tensor

    def __init__(self, preparation: Preparation, spec: ClipSpec) -> None:
        super().__init__()
        front = preparation.spectrogram
        size, length = front.n_fft, front.win_length
        left = (size - length) // 2
        window = F.pad(torch.hann_window(length, dtype=torch.float64), (left, size - length - left))
        angles = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)).double() * (2 * math.pi / size)
        waves = torch.cat([angles.cos(), angles.sin()]) * window
        self.size, self.hop, self.bins = size, front.hop_length, size // 2 + 1
        self.register_buffer("waves", waves.float().unsqueeze(1), persistent=False)
        self.register_buffer("bands", torch.as_tensor(preparation.mel.fb).T.contiguous(), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        padded = F.pad(sound.unsqueeze(1), (self.size // 2, self.size // 2), mode="reflect")
        power = F.conv1d(padded, self.waves, stride=self.hop).square()
        power = power[:, : self.bins] + power[:, self.bins :]
        mel = torch.matmul(self.bands, power)
        return ((mel + 1e-6).log() - LOG_MEL_MEAN).unsqueeze(1) / LOG_MEL_STD


def _where(mask: Tensor, values: Tensor) -> Tensor:
    """Values (B, 1, ...) where `mask` (B, 1) is true; zero elsewhere, even where the values are NaN."""
    return torch.where(mask.view(-1, *([1] * (values.dim() - 1))), values, torch.zeros_like(values))


def stored_form(spec: ClipSpec, name: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of one window of modality `name` as shards store it."""
    entry = modality(name)
    if entry.kind == "video":
        kind = torch.uint16 if entry.channels == 1 else torch.uint8
        return (spec.frames, entry.channels, spec.size, spec.size), kind
    rate = spec.sample_rate if entry.kind == "audio" else entry.rate or 1.0
    count = round(spec.seconds * rate)
    return ((count,) if entry.kind == "audio" else (count, entry.channels)), torch.float32


def random_windows(spec: ClipSpec, modalities: tuple[str, ...], rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Random windows (rows, ...) by modality in their stored form, for tracing or testing a model."""
    generator = torch.Generator().manual_seed(seed)
    streams = {}
    for name in modalities:
        shape, kind = stored_form(spec, name)
        if kind is torch.float32:
            streams[name] = torch.rand((rows, *shape), generator=generator) - 0.5
        else:
            streams[name] = torch.randint(0, 256, (rows, *shape), generator=generator).to(kind)
    return streams


def every_subset(modalities: tuple[str, ...]) -> Tensor:
    """Presence (2^M, M) bool of all subsets of M modalities: row r has modality m if bit m of r is set.

    >>> every_subset(("rgb", "audio")).int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    rows = torch.arange(2 ** len(modalities))
    return rows[:, None] >> torch.arange(len(modalities)) & 1 == 1
