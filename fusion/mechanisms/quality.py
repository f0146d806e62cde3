"""Quality of a stream, measured from its samples, as an extra input of a gate."""

import math

import torch
from torch import Tensor, nn

MEASURES = 3
# Neighbouring samples count as equal if they differ by less than this share of the content's standard deviation.
SAME = 0.01


class QualityScore(nn.Module):
    """A score (..., M) per modality from quality measures (..., M, Q). A gate adds it to its logits.

    `u(q_m) = v . relu(U (q_m - mean_m) / deviation_m + c)`. All modalities use the same network, so what it learns
    from a failing camera also applies to a microphone. The score is 0 where `mask` (..., M) is false, and everywhere
    at the start of training.

    Mean and deviation are running statistics of the training rows of each modality: the average of the first hundred
    batches, then a moving average. Unlike batch norm, they do not depend on the current batch alone.

    modalities: M.
    measures: Q.
    hidden: width of the hidden layer.

    `forward` raises `ValueError` for a quality of another shape.
    """

    mean: Tensor
    square: Tensor
    batches: Tensor

    def __init__(self, modalities: int, measures: int, hidden: int = 32) -> None:
        super().__init__()
        self.measures = measures
        self.network = nn.Sequential(nn.Linear(measures, hidden), nn.ReLU(), nn.Linear(hidden, 1, bias=False))
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        self.register_buffer("mean", torch.zeros(modalities, measures))
        self.register_buffer("square", torch.ones(modalities, measures))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, quality: Tensor, mask: Tensor) -> Tensor:
        if quality.shape != (*mask.shape, self.measures):
            raise ValueError(f"quality has shape {tuple(quality.shape)}: give {(*mask.shape, self.measures)}")
        known = torch.where(mask[..., None], quality.to(self.mean.dtype), self.mean)
        if self.training:
            self._follow(known.detach(), mask)
        # A deviation of at least 0.001 avoids division by zero for a constant measure.
        deviation = (self.square - self.mean.square()).clamp_min(1e-6).sqrt()
        return self.network((known - self.mean) / deviation)[..., 0] * mask

    @torch.no_grad()
    def _follow(self, quality: Tensor, mask: Tensor) -> None:
        rows, there = quality.flatten(0, -3), mask.flatten(0, -2)[..., None].to(quality.dtype)
        count = there.sum(dim=0)
        self.batches += 1
        rate = torch.clamp(1 / self.batches, min=0.01)
        for held, values in ((self.mean, rows), (self.square, rows.square())):
            found = (values * there).sum(dim=0) / count.clamp_min(1)
            held += torch.where(count > 0, rate * (found - held), torch.zeros_like(held))


def measure_quality(modalities: tuple[str, ...], streams: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
    """Three measures (B, K, M, 3) per segment: log deviation of the noise, log deviation of the content, and the
    share of neighbouring samples that are alike.

    streams: prepared pictures (B, K, T, C, H, W), spectrograms (B, K, 1, mels, frames), signals (B, K, N, C).
    present: (B, K) by modality; the measures are 0 where a modality is absent.

    Noise: the mean absolute response to a mask that ignores edges and slopes (Immerkaer 1996), for signals to the
    second difference; for white noise it estimates the deviation. Content: the standard deviation, which blur and
    fading lower. Alike: the next sample along the last axis (signals: in time) differs by less than a hundredth of
    the content's deviation, as after a loss of bit depth or of packets. No gradient flows through the measures.
    """
    columns = []
    for name in modalities:
        mask, stream = present[name], streams.get(name)
        column = torch.zeros(*mask.shape, MEASURES, device=mask.device)
        if stream is not None:
            column = torch.where(mask[..., None], _measures(stream), column)
        columns.append(column)
    return torch.stack(columns, dim=-2)


@torch.no_grad()
def _measures(stream: Tensor) -> Tensor:
    """The three measures (B, K, 3) of one stream."""
    # One clip at a time fits in the CPU's cache, which is several times faster. An exported graph cannot split.
    if not torch.compiler.is_compiling() and stream.device.type == "cpu" and len(stream) > 1:
        return torch.cat([_measures(clip) for clip in stream.split(1)])
    content = stream.flatten(2).std(dim=-1)
    noise = noise_deviation(stream).clamp_min(1e-3).log()
    return torch.stack([noise, content.clamp_min(1e-3).log(), alike_share(stream, content)], dim=-1)


@torch.no_grad()
def noise_deviation(stream: Tensor) -> Tensor:
    """Standard deviation of the white noise in each segment (B, K), in the unit of the stream (Immerkaer 1996).

    stream: video (B, K, T, C, H, W), spectrograms (B, K, 1, mels, frames) or signals (B, K, N, C).
    """
    # The second difference of white noise of deviation s has deviation s sqrt(6), and mean absolute value
    # sqrt(2 / pi) times that.
    if stream.dim() == 4:
        answer, gain = _second_difference(stream, 2), math.sqrt(6)
    else:
        # Immerkaer's mask is the outer product of (1, -2, 1) with itself.
        answer, gain = _second_difference(_second_difference(stream, -1), -2), 6
    return answer.abs().flatten(2).mean(dim=-1) * math.sqrt(math.pi / 2) / gain


def _second_difference(values: Tensor, dim: int) -> Tensor:
    count = values.shape[dim] - 2
    return values.narrow(dim, 0, count) - 2 * values.narrow(dim, 1, count) + values.narrow(dim, 2, count)


@torch.no_grad()
def alike_share(stream: Tensor, content: Tensor) -> Tensor:
    """Share (B, K) of neighbouring samples that differ by at most `SAME` times the deviation `content` (B, K)."""
    steps = stream.diff(dim=2 if stream.dim() == 4 else -1).abs().flatten(2)
    return (steps <= SAME * content[..., None]).to(stream.dtype).mean(dim=-1)
