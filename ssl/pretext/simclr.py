"""Contrast of two augmented views of a segment with all other clips."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...fusion.backbone import Encoded
from ...shards.clips.augment import AugmentConfig
from ...shards.modality import modality
from ...shards.transforms import draw_geometry, move_geometry
from ..views.views import Streams, View, ViewFunction, one_segment, take_segments
from .base import FUSED, PretextTask, check_source, mean_accuracy, mean_of, projection_heads, source_feature, unit

# Side of the smallest crop as a share, and the largest change of brightness and contrast, in standard deviations.
CROP_SCALE, JITTER = 0.4, 0.4
# Share of segments that lose their colour.
GREY = 0.2
# Largest share of the columns and of the rows of a spectrogram to hide, and largest gain in standard deviations.
MASKED, GAIN = 0.25, 0.5
# Standard deviation of the noise added to a signal, and the largest change of its scale.
NOISE, STRETCH = 0.1, 0.2


def augment_twice(streams: Streams, present: Streams, generator: torch.Generator) -> View:
    """One segment of every clip, augmented twice: rows (B, 2) of every stream.

    Video is cropped and mirrored, in the same way for all video streams of a row. RGB also changes brightness and
    contrast, and may lose its colour. Spectrograms change their gain and lose a band of time and a band of frequency.
    Signals are scaled, and noise is added.
    """
    segments = one_segment(present, generator).expand(-1, 2)
    leading = (len(segments), 2)
    geometry = draw_geometry(leading, AugmentConfig(crop_scale=CROP_SCALE, flip=True), generator)
    changed = {}
    for name, stream in streams.items():
        entry, taken = modality(name), take_segments(stream, segments)
        if entry.kind == "video":
            taken = move_geometry(taken, *geometry, vectors=bool(entry.flow_of))
            changed[name] = _recolour(taken, generator) if name == "rgb" else taken
        elif entry.kind == "audio":
            gain = GAIN * _signed(leading, generator, taken)
            changed[name] = _hide_band(_hide_band(taken + gain, -1, generator), -2, generator)
        else:
            noise = torch.randn(taken.shape, generator=generator).to(taken)
            changed[name] = taken * (1 + STRETCH * _signed(leading, generator, taken)) + NOISE * noise
    return View(changed, {name: take_segments(mask, segments) for name, mask in present.items()}, segments)


class SimClr(PretextTask):
    """SimCLR (Chen et al. 2020): attracts two augmented views of a segment, repels views of other clips.

    In each stream, NT-Xent over the 2N projected views of the N clips that have the stream:
    `-log(exp(s_ij / T) / sum_{k != i} exp(s_ik / T))` for the two views i, j of a clip, with the cosine s, mean over
    both orders of all clips. `streams`: modalities or `fused`; default: all modalities. It works with a single
    modality. The views are augmented in addition to the config's augmentation (see `augment_twice`). Defaults: T .1,
    heads hidden 256, 128-d. The published form has stronger colour changes, and blur.

    Shortcut it guards against: colour histograms and loudness that identify clips (both change). By design, the
    feature does not learn what a crop, a mirror or a gain changes.
    """

    views: Mapping[str, ViewFunction] = {"augmented": augment_twice}
    alone = True

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        streams: Sequence[str] | None = None,
        temperature: float = 0.1,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        for name in streams or ():
            check_source(name, [*modalities, FUSED])
        self.temperature = temperature
        self.heads = projection_heads(list(streams or modalities), width, hidden, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        losses, correct, chances, idle = [], [], [], []
        for name, head in self.heads.items():
            feature, present = source_feature(encoded["augmented"], name)
            rows = unit(head(feature))[present.all(dim=1)]
            idle.append(rows)
            if len(rows) > 1:
                loss, accuracy = nt_xent(rows[:, 0], rows[:, 1], self.temperature)
                losses.append(loss)
                correct.append(accuracy)
                chances.append(loss.new_tensor(1 / (2 * len(rows) - 1)))
        return {"loss": mean_of(losses, *idle), **mean_accuracy(correct, chances)}


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020, equation 1), and its top-1 accuracy.

    first, second: (N, D), unit rows of the two views of N clips, N at least 2.
    temperature: divides the cosines.
    """
    rows = torch.cat([first, second])
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    logits = (rows @ rows.T / temperature).masked_fill(itself, float("-inf"))
    mates = torch.arange(len(rows), device=rows.device).roll(len(first))
    return F.cross_entropy(logits, mates), (logits.argmax(dim=1) == mates).float().mean()


def _signed(leading: tuple[int, int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Random numbers in [-1, 1), one per row of `like` (B, 2, ...)."""
    drawn = torch.rand(leading, generator=generator) * 2 - 1
    return drawn.to(like).view(*leading, *[1] * (like.ndim - 2))


def _recolour(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Changes brightness and contrast of each row (B, 2, T, 3, H, W), and makes some rows grey."""
    leading = (rgb.shape[0], rgb.shape[1])
    mean = rgb.mean(dim=(2, 3, 4, 5), keepdim=True)
    contrast, brightness = (JITTER * _signed(leading, generator, rgb) for _ in range(2))
    changed = (rgb - mean) * (1 + contrast) + mean + brightness
    grey = (_signed(leading, generator, rgb) + 1) / 2 < GREY
    return torch.where(grey, changed.mean(dim=3, keepdim=True), changed)


def _hide_band(spectrogram: Tensor, dimension: int, generator: torch.Generator) -> Tensor:
    """Sets a random band along `dimension` of each row (B, 2, 1, mels, frames) to the minimum of the row."""
    length, leading = spectrogram.shape[dimension], (spectrogram.shape[0], spectrogram.shape[1])
    width = torch.rand(leading, generator=generator) * MASKED * length
    start = torch.rand(leading, generator=generator) * (length - width)
    place = torch.arange(length)
    hidden = (place >= start[..., None]) & (place < (start + width)[..., None])
    shape = (*leading, 1, 1, length) if dimension == -1 else (*leading, 1, length, 1)
    return torch.where(
        hidden.view(shape).to(spectrogram.device), spectrogram.amin((-1, -2), keepdim=True), spectrogram
    )
