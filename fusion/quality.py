"""How good a stream looks, from its samples alone: a side input that only a gate sees."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MEASURES = 2


def measure_quality(modalities: tuple[str, ...], streams: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
    """Two numbers (B, K, M, 2) per segment: the logarithms of the noise's and of the content's deviation.

    Of prepared streams: pictures (B, K, T, C, H, W), spectrograms (B, K, 1, mels, frames), signals (B, K, N, C).
    Noise by Immerkaer 1996: the mean absolute answer to a mask that is blind to edges and slopes (of signals: to the
    second difference), which for white noise estimates its deviation. Content: the standard deviation. Blur and
    fading lower the second; their difference is a signal-to-noise ratio. 0 where a modality is absent. Without a
    gradient: a gate is told of quality, an encoder is not to please it.
    """
    columns = []
    for name in modalities:
        mask, stream = present[name], streams.get(name)
        column = torch.zeros(*mask.shape, MEASURES, device=mask.device)
        if stream is not None:
            measured = torch.stack([noise_deviation(stream), stream.detach().flatten(2).std(dim=-1)], dim=-1)
            column = torch.where(mask[..., None], measured.clamp_min(1e-3).log(), column)
        columns.append(column)
    return torch.stack(columns, dim=-2)


@torch.no_grad()
def noise_deviation(stream: Tensor) -> Tensor:
    """The deviation of white noise in each segment (B, K), in the stream's unit."""
    if stream.dim() == 4:
        second = stream[:, :, 2:] - 2 * stream[:, :, 1:-1] + stream[:, :, :-2]
        # White noise of deviation s gives it deviation s sqrt(6), and a mean absolute value sqrt(2 / pi) of that.
        return second.abs().flatten(2).mean(dim=-1) * math.sqrt(math.pi / 2 / 6)
    height, width = stream.shape[-2:]
    mask = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], device=stream.device)
    answer = F.conv2d(stream.reshape(-1, 1, height, width), mask[None, None].to(stream.dtype))
    return answer.view(*stream.shape[:2], -1).abs().mean(dim=-1) * math.sqrt(math.pi / 2) / 6
