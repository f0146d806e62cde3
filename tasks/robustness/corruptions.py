"""Simulated sensor failures, applied to stored windows before they are prepared.

All models are measured under these. Their levels were fixed before any measurement. The corruptions of prepared
streams that train a gate are in `ssl.corruption`.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import add_noise as mix_at_ratio
from torchvision.transforms.v2.functional import gaussian_blur

from ...shards.batch import Batch
from ...shards.clip_spec import ClipSpec
from ...shards.errors import choice_error
from ...shards.modality import modality
from ...shards.transforms import stored_scale

# Clips with a mean square below -60 dB have no signal for a signal-to-noise ratio. Packing uses the same limit.
SILENCE = 1e-6

Alter = Callable[[str, Tensor, float, torch.Generator, ClipSpec], Tensor]


@dataclass(frozen=True)
class Axis:
    """One kind of failure."""

    name: str
    title: str
    """Name for tables and figures."""
    unit: str
    """Unit of the levels."""
    levels: tuple[float, ...]
    """Measured levels, including `clean`."""
    clean: float
    """The level without corruption."""
    alter: Alter | None = None
    """`alter(name, windows, level, generator, spec)` returns the altered windows (K, ...) of one clip.

    None: the windows are
    taken from another time or another clip.
    """
    left_out: str = ""
    """Why clips with the modality may still be excluded."""

    def severity(self, level: float) -> float:
        """Returns the distance from the clean level, in steps."""
        return abs(self.levels.index(level) - self.levels.index(self.clean))

    def label(self, level: float) -> str:
        """Returns the level with its unit."""
        return f"{level:g} {self.unit}".strip()

    @property
    def measured(self) -> str:
        """Title with unit, as an axis label."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def add_noise(name: str, windows: Tensor, level: float, generator: torch.Generator, spec: ClipSpec) -> Tensor:
    """Adds white noise. `level` is its standard deviation, relative to that of the training data.

    For sound, `level` is relative to the clip. Depth pixels without a value stay without.
    """
    if modality(name).kind == "audio":
        return _sound_at(name, windows, -20 * math.log10(level) if level else math.inf, generator, spec)
    _, spread = stored_scale(spec, name)
    values = windows.to(torch.float32)
    noise = torch.randn(values.shape, generator=generator)
    if modality(name).kind == "signal":
        return values + level * spread * noise
    noisy = (values + level * spread.view(-1, 1, 1) * noise).round()
    if name == "depth":
        return torch.where(values > 0, noisy.clamp(1, 65535), values).to(windows.dtype)
    return noisy.clamp(0, 65535 if windows.dtype == torch.uint16 else 255).to(windows.dtype)


def _sound_at(name: str, windows: Tensor, level: float, generator: torch.Generator, spec: ClipSpec) -> Tensor:
    """Adds white noise at a signal-to-noise ratio of `level` dB, over the power of all windows together."""
    sound = windows.reshape(-1)
    noise = torch.randn(sound.shape, generator=generator)
    return mix_at_ratio(sound, noise, torch.tensor(level)).view(windows.shape)


def _blur(name: str, windows: Tensor, level: float, generator: torch.Generator, spec: ClipSpec) -> Tensor:
    """Applies a Gaussian blur with a standard deviation of `level` pixels, cut at three deviations."""
    half = min(math.ceil(3 * level), min(windows.shape[-2:]) - 1)
    side = 2 * half + 1
    return gaussian_blur(windows.contiguous(), [side, side], [max(level, 1e-3)] * 2)


def _drop(name: str, windows: Tensor, level: float, generator: torch.Generator, spec: ClipSpec) -> Tensor:
    """Drops a share of each window's frames, but never all. The last received frame replaces a dropped one."""
    frames = windows.shape[1]
    received = torch.ones(windows.shape[:2], dtype=torch.bool)
    for row in received:
        row[torch.randperm(frames, generator=generator)[: round(level * (frames - 1))]] = False
    last = torch.where(received, torch.arange(frames), -1).cummax(dim=1).values
    # Frames before the first received one show that one.
    last = torch.where(last < 0, received.to(torch.int8).argmax(dim=1, keepdim=True), last)
    return _frames(windows, last)


def _freeze(name: str, windows: Tensor, level: float, generator: torch.Generator, spec: ClipSpec) -> Tensor:
    """Freezes the picture for a share of each window, from a random frame on."""
    frames = windows.shape[1]
    length = round(level * (frames - 1))
    begin = torch.randint(frames - length, (len(windows), 1), generator=generator)
    number = torch.arange(frames)
    still = (number >= begin) & (number <= begin + length)
    return _frames(windows, torch.where(still, begin, number))


def _frames(windows: Tensor, numbers: Tensor) -> Tensor:
    return torch.stack([window[order] for window, order in zip(windows, numbers, strict=True)])


def _holes(name: str, windows: Tensor, level: float, generator: torch.Generator, spec: ClipSpec) -> Tensor:
    """Removes depth from a share of each window's pixels, in fixed patches of about eight pixels."""
    height, width = windows.shape[-2:]
    coarse = torch.rand(len(windows), 1, height // 8 + 2, width // 8 + 2, generator=generator)
    field = F.interpolate(coarse, (height, width), mode="bilinear").flatten(1)
    lost = torch.zeros_like(field, dtype=torch.bool)
    lost.scatter_(1, field.argsort(dim=1)[:, : round(level * height * width)], True)
    values = windows.to(torch.float32)
    return torch.where(lost.view(-1, 1, 1, height, width), 0.0, values).to(windows.dtype)


def _dead_axes(name: str, windows: Tensor, level: float, generator: torch.Generator, spec: ClipSpec) -> Tensor:
    """Sets a share of the signal's channels to zero."""
    channels = windows.shape[-1]
    dead = torch.randperm(channels, generator=generator)[: round(level * channels)]
    altered = windows.clone()
    altered[..., dead] = 0
    return altered


_RATIOS = (math.inf, 20.0, 10.0, 5.0, 0.0, -5.0, -10.0)
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
_SHIFTS = (-1.0, -0.5, -0.2, -0.1, 0.0, 0.1, 0.2, 0.5, 1.0)
AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("snr", "white noise by SNR", "dB", _RATIOS, math.inf, _sound_at, "silent"),
        Axis("noise", "white noise", "σ", (0.0, 0.25, 0.5, 1.0, 2.0), 0.0, add_noise),
        Axis("blur", "Gaussian blur", "px", (0.0, 0.5, 1.0, 2.0, 4.0), 0.0, _blur),
        Axis("drop", "frames lost", "", _SHARES, 0.0, _drop),
        Axis("freeze", "frozen picture", "", (0.0, 0.25, 0.5, 0.75, 1.0), 0.0, _freeze),
        Axis("holes", "pixels missing", "", _SHARES, 0.0, _holes),
        Axis("axes", "channels dead", "", _SHARES, 0.0, _dead_axes),
        Axis("desync", "out of step", "s", _SHIFTS, 0.0, None, "too short or of one modality"),
        Axis("swap", "swap with another class", "", (0.0, 1.0), 0.0, None, "alone in their class"),
    )
}


def axes_of(name: str, chosen: Iterable[str] = ()) -> list[Axis]:
    """Returns the axes that apply to a modality, all or only the `chosen`.

    Raises `RequestError` for an unknown axis.
    """
    chosen = tuple(chosen) or tuple(AXES)
    for axis in chosen:
        if axis not in AXES:
            raise choice_error("axis", axis, AXES)
    kind = modality(name).kind
    fitting = {"video": ["noise", "drop", "freeze"], "audio": ["snr"], "signal": ["noise", "axes"]}[kind]
    fitting += {"rgb": ["blur"], "depth": ["holes"]}.get(name, [])
    return [axis for axis in AXES.values() if axis.name in (*fitting, "desync", "swap") and axis.name in chosen]


def degrade(batch: Batch, name: str, axis: str, level: float, spec: ClipSpec, seed: int = 0) -> Tensor:
    """Returns the stored windows (B, K, ...) of one modality with each clip altered. Absent clips stay unchanged.

    Random draws depend only on (seed, key, modality, axis, level). Every model gets the same, in any batch.
    """
    alter = AXES[axis].alter
    assert alter is not None, f"axis '{axis}' does not alter windows"
    stream = batch.streams[name].cpu()
    rows = [
        alter(name, windows, level, generator_of(seed, key, name, axis, level), spec)
        if bool(there.any())
        else windows
        for key, windows, there in zip(batch.key, stream, batch.present[name], strict=True)
    ]
    return torch.stack(rows).to(stream.dtype)


def alters(axis: str, name: str) -> bool:
    """Returns whether an axis alters the windows of a modality. White noise relative to the content alters all."""
    return AXES[axis].alter is not None and (axis == "noise" or bool(axes_of(name, [axis])))


def degrade_all(batch: Batch, axis: str, level: float, spec: ClipSpec, seed: int = 0) -> Batch:
    """Returns the batch with every stream altered that the axis alters. The clean level changes nothing."""
    if level == AXES[axis].clean:
        return batch
    streams = {
        name: degrade(batch, name, axis, level, spec, seed) if alters(axis, name) else stream
        for name, stream in batch.streams.items()
    }
    return replace(batch, streams=streams)


def generator_of(seed: int, key: str, name: str, axis: str, level: float) -> torch.Generator:
    """Returns the random generator for one clip, modality, axis and level."""
    digest = hashlib.sha256(f"{seed}\n{key}\n{name}\n{axis}\n{level:g}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def silent(sound: Tensor) -> Tensor:
    """Returns which clips (B,) of windows (B, K, N) are silent."""
    return sound.square().flatten(1).mean(dim=1) < SILENCE
