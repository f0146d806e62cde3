"""A coarse summary of a segment, the target of reconstruction."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...shards.modality import modality

MOMENTS, CELLS = 2, 4


@torch.no_grad()
def summarise(stream: Tensor) -> Tensor:
    """Coarse means (B, K, S) of each segment, standardised per segment as patches in He et al. 2022.

    stream: prepared video (B, K, T, C, H, W), spectrograms (B, K, 1, mels, frames) or signals (B, K, N, C).

    Video is averaged over `MOMENTS` parts of the time and `CELLS` x `CELLS` parts of the picture, a spectrogram over
    `CELLS` parts of the frequencies and `CELLS` x `MOMENTS` parts of the time, a signal over `CELLS` parts of the
    time.
    """
    rows = stream.flatten(0, 1)
    if stream.dim() == 6:
        cells = F.adaptive_avg_pool3d(rows.transpose(1, 2), (MOMENTS, CELLS, CELLS))
    elif stream.dim() == 5:
        cells = F.adaptive_avg_pool2d(rows, (CELLS, CELLS * MOMENTS))
    else:
        cells = F.adaptive_avg_pool1d(rows.transpose(1, 2), CELLS)
    flat = cells.flatten(1)
    flat = (flat - flat.mean(dim=1, keepdim=True)) / flat.std(dim=1, keepdim=True, correction=0).clamp_min(1e-3)
    return flat.view(*stream.shape[:2], -1)


def summary_size(name: str) -> int:
    """S, the length of a summary of modality `name`."""
    entry = modality(name)
    return entry.channels * (CELLS if entry.kind == "signal" else MOMENTS * CELLS * CELLS)
