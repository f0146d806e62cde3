"""On-device preparation: stored values to normalised tensors, log-mel spectrograms, and augmentation per segment."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import MelScale, Spectrogram

from .batch import Batch
from .clip_spec import ClipSpec
from .clips.augment import AugmentConfig
from .modality import modality

MEL_BANDS = 64
# Mean and deviation of ln(mel power + 1e-6) for speech and surveillance sound near -20 dBFS. The encoder needs
# numbers of order one, not exact ones, and a fixed pair keeps loudness visible.
LOG_MEL_MEAN, LOG_MEL_STD = -6.0, 4.0


class Preparation(nn.Module):
    """Turns the streams of a `Batch` into what encoders take.

    Video becomes (B, K, T, C, H, W) float, audio (B, K, 1, mels, frames), signals (B, K, N, C), all normalised.

    With an `AugmentConfig` it also augments. Crop and mirroring are drawn once per segment and shared by its frames
    and by RGB, flow and depth; flow vectors are scaled and mirrored with the picture. Segments are drawn
    independently, so a common crop or a continuing border cannot reveal their order. Every draw comes from
    `batch.seed`.
    """

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__()
        self.spec = spec
        # 25 ms windows every 10 ms, the usual speech front end. The spectrum stays complex: adding its squared parts
        # costs a quarter of squaring torchaudio's absolute value.
        transform = _power_of_two(spec.sample_rate * 0.025)
        self.spectrogram = Spectrogram(
            transform,
            win_length=round(spec.sample_rate * 0.025),
            hop_length=round(spec.sample_rate * 0.010),
            power=None,
        )
        self.mel = MelScale(
            MEL_BANDS, spec.sample_rate, f_min=50.0, f_max=spec.sample_rate / 2, n_stft=transform // 2 + 1
        )

    @torch.no_grad()
    def forward(self, batch: Batch, augment: AugmentConfig | None = None) -> dict[str, Tensor]:
        streams = {name: self.normalise(name, stream) for name, stream in batch.streams.items()}
        if augment is None:
            return {name: self.log_mel(s) if modality(name).kind == "audio" else s for name, s in streams.items()}
        generator = torch.Generator().manual_seed(batch.seed)
        video = [name for name in streams if modality(name).kind == "video"]
        if video:
            boxes, mirrored = draw_geometry(streams[video[0]].shape[:2], augment, generator)
            for name in video:
                streams[name] = move_geometry(streams[name], boxes, mirrored, vectors=bool(modality(name).flow_of))
        if "rgb" in streams:
            streams["rgb"] = self._jitter(streams["rgb"], augment, generator)
        for name, stream in streams.items():
            if modality(name).kind == "video" and augment.noise:
                noise = torch.randn(stream.shape, generator=generator).to(stream.device)
                streams[name] = stream.add_(noise, alpha=augment.noise)
            elif modality(name).kind == "audio":
                streams[name] = self._augment_sound(stream, augment, generator)
            elif modality(name).kind == "signal":
                streams[name] = self._augment_signal(name, stream, augment, generator)
        return streams

    def log_mel(self, sound: Tensor) -> Tensor:
        """Returns normalised log-mel spectrograms (B, K, 1, mels, frames) of samples (B, K, N)."""
        spectrum = self.spectrogram(sound)
        mel = self.mel(spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag))
        return ((mel + 1e-6).log() - LOG_MEL_MEAN).unsqueeze(2) / LOG_MEL_STD

    def normalise(self, name: str, stream: Tensor) -> Tensor:
        """Normalises pictures (..., C, H, W) or signals (..., C) by mean and deviation. Sound is unchanged."""
        entry = modality(name)
        if entry.kind == "audio":
            return stream
        # One copy, then changed in place: on a CPU, passes over memory dominate the cost.
        values = stream.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        centre, spread = stored_scale(self.spec, name)
        shape = (-1, 1, 1) if entry.kind == "video" else (-1,)
        return values.sub_(centre.to(values.device).view(shape)).div_(spread.to(values.device).view(shape))

    def _jitter(self, rgb: Tensor, augment: AugmentConfig, generator: torch.Generator) -> Tensor:
        """Brightness, contrast and saturation of normalised RGB: one affine colour map, drawn per segment."""
        batch, segments, frames, channels, height, width = rgb.shape

        def draw(strength: float) -> Tensor:
            return ((torch.rand((batch, segments), generator=generator) * 2 - 1) * strength).to(rgb.device)

        contrast, brightness, saturation = (
            1 + draw(augment.contrast),
            draw(augment.brightness),
            draw(augment.saturation),
        )
        # Contrast scales around the segment's mean; saturation scales around gray, the mean of the three colours.
        shift = rgb.mean(dim=(2, 3, 4, 5)) * (1 - contrast) + brightness
        gray = torch.full((channels, channels), 1 / channels, device=rgb.device)
        colours = torch.eye(channels, device=rgb.device) * (1 + saturation)[..., None, None]
        colours = (colours - gray * saturation[..., None, None]) * contrast[..., None, None]
        colours = colours[:, :, None].expand(-1, -1, frames, -1, -1).reshape(-1, channels, channels)
        shift = shift[:, :, None].expand(-1, -1, frames).reshape(-1, 1, 1)
        return torch.baddbmm(shift, colours, rgb.reshape(-1, channels, height * width)).view(rgb.shape)

    def _augment_sound(self, sound: Tensor, augment: AugmentConfig, generator: torch.Generator) -> Tensor:
        gain = (torch.rand((*sound.shape[:2], 1), generator=generator) * 2 - 1) * augment.gain_db
        if augment.audio_noise:
            level = sound.square().mean(dim=-1, keepdim=True).sqrt()
            share = torch.rand((*sound.shape[:2], 1), generator=generator) * augment.audio_noise
            sound = sound + level * (share * torch.randn(sound.shape, generator=generator)).to(sound.device)
        spectrogram = self.log_mel(sound * (10 ** (gain / 20)).to(sound.device))
        floor = spectrogram.amin(dim=(-1, -2), keepdim=True)
        for dimension, share in ((-1, augment.time_mask), (-2, augment.frequency_mask)):
            length = spectrogram.shape[dimension]
            width = torch.rand(sound.shape[:2], generator=generator) * share * length
            first = torch.rand(sound.shape[:2], generator=generator) * (length - width)
            place = torch.arange(length)
            masked = (place >= first[..., None]) & (place < (first + width)[..., None])
            shape = (*sound.shape[:2], 1, 1, length) if dimension == -1 else (*sound.shape[:2], 1, length, 1)
            spectrogram = torch.where(masked.view(shape).to(sound.device), floor, spectrogram)
        return spectrogram

    def _augment_signal(
        self, name: str, signal: Tensor, augment: AugmentConfig, generator: torch.Generator
    ) -> Tensor:
        if modality(name).vectors and augment.turn:
            centre, spread = (value.to(signal.device) for value in stored_scale(self.spec, name))
            turns = draw_turns(signal.shape[:2], augment.turn, generator).to(signal.device)
            # Rotated in physical units: normalisation scales each axis differently.
            triples = (signal * spread + centre).unflatten(-1, (-1, 3))
            turned = torch.einsum("bkij,bknvj->bknvi", turns, triples).flatten(-2)
            signal = (turned - centre) / spread
        if augment.signal_noise:
            noise = torch.randn(signal.shape, generator=generator).to(signal.device)
            signal = signal + augment.signal_noise * noise
        return signal


def draw_turns(leading: tuple[int, ...], degrees: float, generator: torch.Generator) -> Tensor:
    """Returns random rotations (*leading, 3, 3): uniform axis direction, angle uniform in [-degrees, degrees]."""
    axes = F.normalize(torch.randn((*leading, 3), generator=generator), dim=-1)
    angles = (torch.rand(leading, generator=generator) * 2 - 1) * math.radians(degrees)
    x, y, z = (axes * angles[..., None]).unbind(-1)
    still = torch.zeros_like(x)
    rows = [still, -z, y, z, still, -x, -y, x, still]
    return torch.linalg.matrix_exp(torch.stack(rows, dim=-1).unflatten(-1, (3, 3)))


def stored_scale(spec: ClipSpec, name: str) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation (C,) of the stored values over the training set, for pictures and signals."""
    statistics = spec.statistics[name]
    centre, spread = torch.tensor(statistics.mean), torch.tensor(statistics.std).clamp_min(1e-6)
    if modality(name).flow_of:
        # Byte 128 means no motion. Only the scale is normalised, so that no motion stays zero.
        return torch.full_like(centre, 128), spread * 127 / spec.flow_bound
    return centre, spread


def draw_geometry(
    leading: tuple[int, ...], augment: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns crop boxes (B, K, 3) as (scale, x shift, y shift) in [-1, 1], and mirroring (B, K) as +1 or -1."""
    scale = 1 - torch.rand(leading, generator=generator) * (1 - augment.crop_scale)
    shifts = (torch.rand((*leading, 2), generator=generator) * 2 - 1) * (1 - scale[..., None])
    flips = torch.rand(leading, generator=generator) < (0.5 if augment.flip else 0.0)
    return torch.cat([scale[..., None], shifts], dim=-1), torch.where(flips, -1.0, 1.0)


def move_geometry(video: Tensor, boxes: Tensor, mirrored: Tensor, vectors: bool = False) -> Tensor:
    """Crops and mirrors video (B, K, T, C, H, W) by the boxes of `draw_geometry`, alike for all frames of a segment.

    `vectors`: the channels are (dx, dy) in pixels. They grow with the magnification, and mirroring negates dx.
    """
    if bool((boxes[..., 0] == 1).all()) and bool((mirrored == 1).all()):
        return video
    batch, segments, frames, channels, height, width = video.shape
    scale, across, down = boxes.reshape(-1, 3).to(video.device).unbind(-1)
    mirror = mirrored.reshape(-1).to(video.device)
    theta = torch.zeros(batch * segments, 2, 3, device=video.device)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, 0, 2], theta[:, 1, 2] = across, down
    grid = F.affine_grid(theta, [batch * segments, frames * channels, height, width], align_corners=False)
    flat = video.reshape(batch * segments, frames * channels, height, width)
    moved = F.grid_sample(flat, grid.to(flat.dtype), padding_mode="reflection", align_corners=False)
    moved = moved.view(batch, segments, frames, channels, height, width)
    if vectors:
        gains = torch.stack([mirror / scale, 1 / scale], dim=-1).view(batch, segments, 1, 2, 1, 1)
        moved = moved.mul_(gains)
    return moved


def _power_of_two(samples: float) -> int:
    return 2 ** math.ceil(math.log2(samples))
