"""Pooling of frame features over time."""

import torch
from torch import Tensor, nn

from ...shards.errors import choice_error


class MeanPooling(nn.Module):
    """(N, T, D) -> (N, D): the mean over time, which ignores order."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, sequence: Tensor) -> Tensor:
        return sequence.mean(dim=1)


class RecurrentPooling(nn.Module):
    """(N, T, D) -> (N, D): the mean over time plus the last state of a GRU (Cho et al. 2014), which depends on order.

    The mean is a short path for the gradient of appearance; the GRU learns motion.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, sequence: Tensor) -> Tensor:
        sequence = self.norm(sequence)
        _, last = self.gru(sequence)
        return sequence.mean(dim=1) + last[0]


class AttentionPooling(nn.Module):
    """(N, T, D) -> (N, D): a learned query attends over frames, with a learned embedding of relative time."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.time = nn.Linear(1, width)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads if width % heads == 0 else 1, batch_first=True)

    def forward(self, sequence: Tensor) -> Tensor:
        places = torch.linspace(-1, 1, sequence.shape[1], device=sequence.device, dtype=sequence.dtype)
        tokens = self.norm(sequence) + self.time(places[:, None])
        query = self.query.expand(len(sequence), -1, -1)
        return self.attention(query, tokens, tokens, need_weights=False)[0][:, 0]


POOLINGS: dict[str, type[nn.Module]] = {
    "mean": MeanPooling,
    "gru": RecurrentPooling,
    "attention": AttentionPooling,
}


def build_pooling(name: str, width: int) -> nn.Module:
    """Builds the pooling `name` for features of `width`. Raises `RequestError` for an unknown name."""
    if name not in POOLINGS:
        raise choice_error("pooling", name, POOLINGS)
    return POOLINGS[name](width)
