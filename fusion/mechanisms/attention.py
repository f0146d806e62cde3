"""Fusion of tokens by attention between modalities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gates import Fused, Fusion, presence_shares, stack_features
from .tokens import join_tokens, zero_absent


class CrossBlock(nn.Module):
    """`x <- x + tanh(a) XAttn(x, others)`, then `x <- x + tanh(b) FFN(x)`. Starts as the identity: a = b = 0."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )
        self.attention_gate, self.network_gate = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """Returns tokens (N, L, D).

        tokens: (N, L, D).
        allowed: (N, L, L) bool, whether the row may attend to the column. A row without columns gets zero attention.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.project_in(self.norm(tokens)).chunk(3, dim=-1)
        )
        some = allowed.any(dim=-1, keepdim=True)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=(allowed | ~some).unsqueeze(1))
        attended = self.project_out(attended.transpose(1, 2).flatten(-2)) * some
        tokens = tokens + self.attention_gate.tanh() * attended
        return tokens + self.network_gate.tanh() * self.network(self.norm_after(tokens))


class CrossAttentionFusion(Fusion):
    """Tokens of each modality attend to the tokens of the other present modalities (Alayrac et al. 2022).

    All modalities use the same blocks. A learned vector per modality is added to its tokens. z is the mean of the
    tokens, in which each modality counts equally, regardless of its number of tokens. Reported weights: equal shares
    of the present modalities.

    depth: number of blocks.
    heads: largest number of attention heads; the largest divisor of `width` up to it is used.
    expansion: hidden width of the feed-forward layers, in multiples of `width`.
    """

    level = "token"

    def __init__(
        self, modalities: tuple[str, ...], width: int, depth: int = 2, heads: int = 4, expansion: int = 2
    ) -> None:
        super().__init__(modalities, width)
        self.kinds = nn.Parameter(torch.randn(len(modalities), width) * 0.02)
        self.blocks = nn.ModuleList(CrossBlock(width, _divisor(width, heads), expansion) for _ in range(depth))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        tokens, owners, there = join_tokens(features, present, self.modalities)
        leading = tokens.shape[:-2]
        tokens = (tokens + self.kinds[owners].to(tokens.dtype)).flatten(0, -3)
        allowed = there.flatten(0, -2)[:, None, :] & (owners[:, None] != owners[None, :])
        for block in self.blocks:
            tokens = block(tokens, allowed)
        mask = torch.stack([present[name] for name in self.modalities], dim=-1)
        shares = presence_shares(mask, tokens)
        # Weight of a token in the mean: the share of its modality divided by the modality's number of tokens.
        lengths = torch.bincount(owners, minlength=len(self.modalities))
        parts = (shares / lengths)[..., owners]
        return self.finish((parts[..., None] * tokens.unflatten(0, leading)).sum(dim=-2), shares, mask)


class BottleneckFusion(Fusion):
    """`[t_m; b_m] <- Layer_m([t_m; b])`, then `b <- mean over present m of b_m` (Nagrani et al. 2021, MBT).

    Modalities exchange information only through a few learned tokens b. z is the mean over the present modalities of
    their mean tokens. Reported weights: equal shares of the present modalities.

    bottlenecks: number of learned tokens b.
    depth: number of layers.
    heads: largest number of attention heads; the largest divisor of `width` up to it is used.
    expansion: hidden width of the feed-forward layers, in multiples of `width`.
    """

    level = "token"

    def __init__(
        self,
        modalities: tuple[str, ...],
        width: int,
        bottlenecks: int = 4,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
    ) -> None:
        super().__init__(modalities, width)
        self.bottleneck = nn.Parameter(torch.randn(bottlenecks, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.ModuleList(_layer(width, _divisor(width, heads), expansion) for _ in modalities) for _ in range(depth)
        )

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        sequences = {name: zero_absent(features[name], present[name]) for name in self.modalities}
        mask = torch.stack([present[name] for name in self.modalities], dim=-1)
        shares = presence_shares(mask, self.bottleneck)
        shared = self.bottleneck.expand(*mask.shape[:-1], -1, -1)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            answers = []
            for name, block in zip(self.modalities, layer, strict=True):
                joined = torch.cat([sequences[name], shared.to(sequences[name].dtype)], dim=-2)
                out = block(joined.flatten(0, -3)).unflatten(0, joined.shape[:-2])
                sequences[name], said = out.split([sequences[name].shape[-2], shared.shape[-2]], dim=-2)
                answers.append(said)
            shared = (shares[..., None, None] * torch.stack(answers, dim=-3)).sum(dim=-3)
        means = {name: sequence.mean(dim=-2) for name, sequence in sequences.items()}
        values, _ = stack_features(means, present, self.modalities)
        return self.fuse(values, shares.to(values.dtype), mask)


def _layer(width: int, heads: int, expansion: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, heads, expansion * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def _divisor(width: int, heads: int) -> int:
    """The largest number of heads, up to `heads`, that divides `width`."""
    return max(number for number in range(1, heads + 1) if width % number == 0)
