"""Prediction of hidden tokens in a grid of segments and modalities."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ...shards.errors import RequestError
from ..views.segment_summary import summary_size
from .base import PLAIN, TEACHER, PretextTask, clip_numbers, mean_of, projection_heads, unit
from .contrastive import cross_modal_loss


class TokenPredictor(nn.Module):
    """A small transformer on the tokens of a clip, one per (segment, modality), some of them hidden.

    A learned vector replaces hidden tokens. Learned embeddings of modality and segment number are added to all
    tokens. Absent tokens are neither attended to nor predicted.
    """

    def __init__(self, count: int, width: int, segments: int, layers: int, heads: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.modality = nn.Parameter(torch.randn(count, width) * 0.02)
        self.place = nn.Parameter(torch.randn(segments, 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads if width % heads == 0 else 1, 2 * width, 0.0, F.gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, tokens: Tensor, hidden: Tensor, present: Tensor) -> Tensor:
        """Predictions (B, K, M, D).

        tokens: (B, K, M, D).
        hidden: (B, K, M) bool, tokens to replace by the learned vector.
        present: (B, K, M) bool.
        """
        seen = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        seen = seen + self.modality + self.place[: tokens.shape[1]]
        padding = ~present.flatten(1)
        # Attention over no tokens would give NaN.
        padding = padding & ~padding.all(dim=1, keepdim=True)
        return self.layers(seen.flatten(1, 2), src_key_padding_mask=padding).view(tokens.shape)


def hide(present: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """The tokens (B, K, M) to hide: about `share` of the present tokens of a clip, at least one but never all."""
    order = torch.rand(present.shape, generator=generator).to(present.device)
    order = order.masked_fill(~present, 2.0).flatten(1).argsort(dim=1).argsort(dim=1).view(present.shape)
    count = present.flatten(1).sum(dim=1)
    wanted = (share * count).round().clamp_min(1)
    wanted = torch.minimum(wanted, (count - 1).clamp_min(0))
    return present & (order < wanted[:, None, None])


class MaskedTask(PretextTask):
    """Base of masked tasks: the grid of tokens and the predictor."""

    across_clips = False
    alone = True

    def __init__(
        self, modalities: Sequence[str], width: int, segments: int, share: float, layers: int, heads: int
    ) -> None:
        super().__init__()
        if len(modalities) * segments < 2:
            raise RequestError("a masked task needs at least two tokens: give more segments or modalities")
        self.modalities, self.share = tuple(modalities), share
        self.predictor = TokenPredictor(len(modalities), width, segments, layers, heads)

    def grid(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Features (B, K, M, D) and presence (B, K, M)."""
        tokens = torch.stack([encoded.features[name] for name in self.modalities], dim=2)
        return tokens, torch.stack([encoded.present[name] for name in self.modalities], dim=2)


@torch.no_grad()
def told_apart(columns: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The share of predictions whose nearest target, among all targets of the modality, is the right one.

    columns: predictions (N, D) and targets (N, D) in the same order, by modality.

    Returns `accuracy` over all rows and its `chance`, one divided by the number of targets. Empty without rows.
    """
    hits, chances = [], []
    for predicted, wanted in columns:
        if len(predicted):
            nearest = (predicted @ wanted.T).argmax(dim=1)
            hits.append((nearest == torch.arange(len(nearest), device=nearest.device)).float())
            chances.append(torch.full_like(hits[-1], 1 / len(nearest)))
    return {"accuracy": torch.cat(hits).mean(), "chance": torch.cat(chances).mean()} if hits else {}


class MaskedLatent(MaskedTask):
    """Masked latent prediction of (segment, modality) tokens (data2vec, Baevski et al. 2022; JEPA 2023).

    A `share` of the tokens of a clip is hidden. A transformer of 2 layers predicts the features of the hidden tokens
    under a moving average of the backbone, with the loss `2 - 2 cos`. Defaults: share .5, 4 heads. The accuracy is
    the share of predictions whose nearest target, among all hidden tokens of the modality, is the right one.

    Shortcuts it guards against: the feature of the hidden token (the predictor does not see it), and collapse (by the
    slow target; monitor `embedding/std`).
    """

    teacher = True

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        share: float = 0.5,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__(modalities, width, segments, share, layers, heads)
        self.out = nn.Linear(width, width)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        tokens, present = self.grid(encoded[PLAIN])
        target, _ = self.grid(encoded[TEACHER])
        hidden = hide(present, self.share, generator)
        predicted = unit(self.out(self.predictor(tokens, hidden, present)))
        wanted = unit(target.detach())
        losses = [(2 - 2 * (predicted * wanted).sum(-1))[hidden].mean()] if bool(hidden.any()) else []
        outputs = {"loss": mean_of(losses, predicted, *self.parameters())}
        columns = [(predicted[:, :, m][rows], wanted[:, :, m][rows]) for m, rows in enumerate(hidden.unbind(-1))]
        return outputs | told_apart(columns)


class ContrastiveMasked(MaskedTask):
    """CAV-MAE (Gong et al. 2023): reconstruction of hidden content plus contrast between clips.

    A `share` of the (segment, modality) tokens of a clip is hidden. A transformer over all modalities reconstructs
    their standardised coarse content from the other tokens, with the mean squared error. A token is a whole stream of
    a segment; masks within frames or spectrograms would need token encoders. InfoNCE over every pair of modalities is
    added with the factor `contrast`. Published: share .75, contrast .01, T .05, one direction. The accuracy is the
    share of reconstructions whose nearest content, among all hidden tokens of the modality, is the right one.

    Shortcuts it guards against: those of `MaskedLatent`, and brightness and loudness (removed by standardisation).
    """

    across_clips = True
    reads_summary = True

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        share: float = 0.75,
        contrast: float = 0.01,
        temperature: float = 0.05,
        layers: int = 1,
        heads: int = 4,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__(modalities, width, segments, share, layers, heads)
        self.contrast, self.temperature = contrast, temperature
        self.heads = projection_heads(modalities, width, hidden, dimension)
        self.decoders = nn.ModuleDict({name: nn.Linear(width, summary_size(name)) for name in modalities})

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        tokens, present = self.grid(plain)
        hidden = hide(present, self.share, generator)
        predicted = self.predictor(tokens, hidden, present)
        losses, columns = [], []
        for number, name in enumerate(self.modalities):
            mask, summary = hidden[:, :, number], plain.facts.get(f"summary/{name}")
            if summary is not None and bool(mask.any()):
                rebuilt = self.decoders[name](predicted[:, :, number][mask])
                losses.append(F.mse_loss(rebuilt, summary[mask]))
                columns.append((rebuilt, summary[mask]))
        rows = {name: unit(head(plain.features[name])).flatten(0, 1) for name, head in self.heads.items()}
        contrasts, names = [], list(self.modalities)
        for place, first in enumerate(names):
            for second in names[place + 1 :]:
                valid = (plain.present[first] & plain.present[second]).flatten()
                loss, _, _ = cross_modal_loss(rows[first], rows[second], valid, clip_numbers(plain), self.temperature)
                contrasts.append(loss)
        total = mean_of(losses, predicted, *self.parameters())
        if contrasts:
            total = total + self.contrast * torch.stack(contrasts).mean()
        return {"loss": total, "rebuilt": mean_of(losses, predicted).detach(), **told_apart(columns)}
