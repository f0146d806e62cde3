"""Simulated sensor faults of known severity, which a gate should detect."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def add_noise(stream: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Adds white noise with a deviation of up to 3, three times that of the stream."""
    noise = torch.randn(stream.shape, generator=generator).to(stream.device)
    return stream + 3 * severity * noise


def fade(stream: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Lowers the contrast around the mean, as by a fogged lens or a covered microphone."""
    return stream * (1 - severity) + stream.mean() * severity


def coarsen(stream: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Reduces the bit depth, from 32 levels at severity 0 to 2 at severity 1, over six deviations."""
    levels = 2 ** (5 - 4 * severity)
    return (stream.clamp(-3, 3) / 6 * levels).round() * 6 / levels


def gap(stream: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Sets a share `severity` of the time to its mean, as after lost packets.

    Time is dimension 0, or the last dimension of a spectrogram (1, mels, frames).
    """
    stream = stream.clone()
    view = stream.movedim(-1, 0) if stream.dim() == 3 else stream
    length = len(view)
    width = max(round(severity * length), 1)
    first = int(torch.randint(length - width + 1, (), generator=generator))
    view[first : first + width] = view.mean()
    return stream


def blur(stream: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Blurs by a mean over squares of up to 13 x 13 pixels, or over up to 13 samples of a signal (N, C)."""
    side = 2 * round(6 * severity) + 1
    if stream.dim() == 2:
        smooth = F.avg_pool1d(stream.T.unsqueeze(0), side, 1, side // 2, count_include_pad=False)
        return smooth[0].T
    flat = stream.reshape(-1, 1, *stream.shape[-2:])
    return F.avg_pool2d(flat, side, 1, side // 2, count_include_pad=False).view(stream.shape)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": add_noise,
    "fade": fade,
    "coarse": coarsen,
    "gap": gap,
    "blur": blur,
}
DROPPED = 1.0
# Blur is not used in training, so that it can test a gate on an unseen corruption.
TRAINED = ("noise", "fade", "coarse", "gap")


def corrupt_streams(
    streams: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    generator: torch.Generator,
    kinds: tuple[str, ...] = TRAINED,
    share: float = 0.5,
    dropped: float = 0.2,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Corrupts random streams of random segments.

    streams: (B, K, ...) by modality.
    present: (B, K) by modality.
    generator: for all draws.
    kinds: corruptions to draw from.
    share: probability that a segment with several modalities has corrupted ones: a random subset, with equal
        probabilities, but never all. A segment with one modality stays clean: it has no clean modality to prefer.
        Each modality is corrupted equally often, so a fixed preference of a gate does not help.
    dropped: probability that a corrupted modality is dropped; otherwise its severity is uniform in (0, 1).

    Returns the streams with a corrupted segment, `present` without the dropped modalities, and the severity
    (B, K, M) in the order of `present`: 0 for clean, 1 for dropped.
    """
    names = list(present)
    mask = torch.stack([present[name] for name in names], dim=-1).cpu()
    chosen = _proper_subsets(mask, generator)
    chosen &= torch.rand(*mask.shape[:2], 1, generator=generator) < share
    severity = torch.rand(mask.shape, generator=generator) * chosen
    lost = chosen & (torch.rand(mask.shape, generator=generator) < dropped)
    changed: dict[str, Tensor] = {}
    for number, name in enumerate(names):
        if name not in streams:
            continue
        for clip, segment in (chosen[..., number] & ~lost[..., number]).nonzero().tolist():
            if name not in changed:
                changed[name] = streams[name].clone()
            kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
            level = float(severity[clip, segment, number])
            changed[name][clip, segment] = CORRUPTIONS[kind](changed[name][clip, segment], level, generator)
    severity = torch.where(lost, torch.full_like(severity, DROPPED), severity)
    device = next(iter(present.values())).device
    kept = {name: present[name] & ~lost[..., number].to(device) for number, name in enumerate(names)}
    return changed, kept, severity.to(device)


def _proper_subsets(mask: Tensor, generator: torch.Generator) -> Tensor:
    """A random subset of the true entries of each row of `mask` (..., M): neither empty nor all of them.

    All such subsets are equally likely. A row with fewer than two true entries gets none.
    """
    count = mask.sum(dim=-1)
    # The subsets of n entries are the numbers from 1 to 2^n - 2, one bit per entry.
    numbers = 2**count - 2
    drawn = 1 + (torch.rand(count.shape, generator=generator, dtype=torch.float64) * numbers).long()
    place = (mask.cumsum(dim=-1) - 1).clamp_min(0)
    bits = (drawn[..., None] >> place) & 1
    return (bits == 1) & mask & (count[..., None] > 1)
