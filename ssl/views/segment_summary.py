"""A coarse summary of a segment, the target of reconstruction."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...shards.modality import modality

MOMENTS, CELLS = 2, 4


@torch.no_grad()
def summarise(stream: Tensor) -> Tensor:
    """Means (B, K, S) over `MOMENTS` parts of the time and `CELLS` x `CELLS` parts of the picture.

    stream: prepared video (B, K, T, C, H, W), spectrograms (B, K, 1, mels, frames), whose two axes are the picture,
        or signals (B, K, N, C), in `CELLS` parts of the time.

    The values of each segment are standardised, as masked autoencoders do with patches (He et al. 2022).
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
