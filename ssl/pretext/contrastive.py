"""Contrastive tasks across modalities and across time."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...fusion.backbone import Encoded
from ...shards.errors import RequestError
from .base import (
    FUSED,
    PLAIN,
    WITHOUT,
    PretextTask,
    check_source,
    clip_numbers,
    mean_accuracy,
    modality_pairs,
    names_in,
    projection_heads,
    source_feature,
    unit,
    zero_loss,
)


class CrossModal(PretextTask):
    """Cross-modal InfoNCE (CMC, Tian et al. 2020; CLIP, Radford et al. 2021) over pairs of modalities.

    `-1/2N sum_i [log softmax_j(v_i . a_j / T)_i + log softmax_j(a_i . v_j / T)_i]`, one row per (clip, segment).
    Negatives are other clips only. Other segments of the same clip are masked, because they may match. `pairs`: lists
    of two modalities (or `fused`); default: all pairs of modalities ("full graph"). `anchor`: pairs with one modality
    ("core view"). `joint`: rows of the query's modality are negatives too (Morgado et al. 2021 find the default,
    cross-modal negatives only, better). Defaults: T .07, heads hidden 256, 128-d. `NTXentLoss` of lightly has only
    the joint form.

    Shortcuts it guards against: silent or absent streams (`present`), and encoding artefacts of files, which packing
    makes equal.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        anchor: str | None = None,
        joint: bool = False,
        temperature: float = 0.07,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs([*modalities, FUSED], pairs, anchor)
        self.temperature, self.joint = temperature, joint
        self.heads = projection_heads(names_in(self.pairs), width, hidden, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        rows, present = {}, {}
        for name, head in self.heads.items():
            feature, mask = source_feature(plain, name)
            rows[name], present[name] = unit(head(feature)).flatten(0, 1), mask.flatten()
        losses, correct, chances = [], [], []
        for first, second in self.pairs:
            valid = present[first] & present[second]
            loss, accuracy, chance = cross_modal_loss(
                rows[first], rows[second], valid, clip_numbers(plain), self.temperature, self.joint
            )
            losses.append(loss)
            correct.append(accuracy)
            chances.append(chance)
        return {"loss": torch.stack(losses).mean() + zero_loss(*rows.values()), **mean_accuracy(correct, chances)}


class AcrossTime(PretextTask):
    """Within-modality InfoNCE across time (CVRL, Qian et al. 2021): attracts segments of a clip, repels other clips.

    The loss of `CrossModal` between a modality's segments and the next segments of the same clips. Each stream has a
    separate head. `streams`: modalities, or `fused`, which also trains the fusion; default: all modalities. Defaults:
    T .07, heads hidden 256, 128-d.

    Shortcut it guards against: the same crop for all segments (augmentation is drawn per segment). A still background
    identifies a clip as well as motion does, so RGB learns less from this task than depth, flow or sound.
    """

    alone = True

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        segments: int,
        streams: Sequence[str] | None = None,
        temperature: float = 0.07,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        if segments < 2:
            raise RequestError(f"task 'across_time' needs data.segments of at least 2, not {segments}")
        for name in streams or ():
            check_source(name, [*modalities, FUSED])
        self.temperature = temperature
        self.heads = projection_heads(list(streams or modalities), width, hidden, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        losses, correct, chances = [], [], []
        for name, head in self.heads.items():
            feature, present = source_feature(plain, name)
            rows = unit(head(feature))
            later, valid = rows.roll(-1, 1), (present & present.roll(-1, 1)).flatten()
            loss, accuracy, chance = cross_modal_loss(
                rows.flatten(0, 1), later.flatten(0, 1), valid, clip_numbers(plain), self.temperature
            )
            losses.append(loss)
            correct.append(accuracy)
            chances.append(chance)
        return {"loss": torch.stack(losses).mean(), **mean_accuracy(correct, chances)}


class LeaveOneOut(PretextTask):
    """InfoNCE between each modality and the fused embedding of all others (ours).

    For every modality m, the loss of `CrossModal` compares the embedding fused without m with the feature of m. This
    also trains the gate. MultiMAE and ImageBind have targets per modality too, but no such pairs. Defaults as in
    `CrossModal`.

    Shortcut it guards against: a fused embedding that contains m (m is hidden from the fusion).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        temperature: float = 0.07,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.without = tuple(modalities)
        self.temperature = temperature
        self.heads = projection_heads([FUSED, *modalities], width, hidden, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        losses, correct, chances = [], [], []
        for name in self.modalities:
            others = torch.stack([plain.present[other] for other in self.modalities if other != name]).any(dim=0)
            rest = unit(self.heads[FUSED](encoded[f"{WITHOUT}{name}"].embedding)).flatten(0, 1)
            own = unit(self.heads[name](plain.features[name])).flatten(0, 1)
            valid = (others & plain.present[name]).flatten()
            loss, accuracy, chance = cross_modal_loss(rest, own, valid, clip_numbers(plain), self.temperature)
            losses.append(loss)
            correct.append(accuracy)
            chances.append(chance)
        return {"loss": torch.stack(losses).mean(), **mean_accuracy(correct, chances)}


def cross_modal_loss(
    first: Tensor, second: Tensor, valid: Tensor, clips: Tensor, temperature: float, joint: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """InfoNCE between two modalities, in both directions (CMC, Tian et al. 2020).

    first, second: unit rows (N, D).
    valid: (N,), whether both modalities are present.
    clips: (N,), clip number of each row. Rows of the same clip are not negatives of each other.
    temperature: divides the cosines.
    joint: rows of the query's modality are negatives too.

    Returns the loss, the top-1 retrieval accuracy and its chance, one divided by the number of candidates. Without
    valid rows the loss is zero, with gradient, and accuracy and chance are NaN.
    """
    target = torch.arange(len(first), device=first.device)
    diagonal = torch.eye(len(first), dtype=torch.bool, device=first.device)
    same_clip = clips[:, None] == clips[None, :]
    blocked = (~valid[None, :] | same_clip) & ~diagonal
    loss, hits = first.new_zeros(()), []
    for query, bank in ((first, second), (second, first)):
        logits = (query @ bank.T / temperature).masked_fill(blocked, float("-inf"))
        hits.append((logits.argmax(-1) == target)[valid].float())
        if joint:
            own = (query @ query.T / temperature).masked_fill(~valid[None, :] | same_clip, float("-inf"))
            logits = torch.cat([logits, own], dim=1)
        losses = F.cross_entropy(logits, target, reduction="none")
        loss = loss + torch.where(valid, losses, torch.zeros_like(losses)).sum() / valid.sum().clamp_min(1) / 2
    return loss, torch.cat(hits).mean(), (1 / (~blocked).sum(dim=1))[valid].mean()


def set_loss(
    similarities: Tensor, positives: Tensor, negatives: Tensor, valid: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """InfoNCE with any number of positives per query (Khosla et al. 2020, positives outside the logarithm).

    similarities: (N, M), of N queries and M candidates.
    positives, negatives: (N, M) bool. A candidate may be neither.
    valid: (N,), which queries count.
    temperature: divides the similarities.

    Returns the loss, the accuracy and its chance, over valid queries with a positive and a negative. Loss: the mean
    over the positives p of a query of `-log(e^p / (e^p + sum of e^negative))`, then over queries. Accuracy: the share
    of queries whose nearest candidate is a positive. Chance: the share of positives among the candidates. Accuracy
    and chance are NaN without such queries.
    """
    logits = similarities / temperature
    others = logits.masked_fill(~negatives, float("-inf")).logsumexp(dim=1, keepdim=True)
    # A row without negatives has no loss, but -inf would make its gradient NaN.
    others = torch.where(negatives.any(dim=1, keepdim=True), others, torch.full_like(others, -1e4))
    terms = F.softplus(others - logits)
    count = positives.sum(dim=1)
    rows = valid & (count > 0) & negatives.any(dim=1)
    each = torch.where(positives, terms, torch.zeros_like(terms)).sum(dim=1) / count.clamp_min(1)
    loss = torch.where(rows, each, torch.zeros_like(each)).sum() / rows.sum().clamp_min(1)
    candidates = positives | negatives
    nearest = logits.masked_fill(~candidates, float("-inf")).argmax(dim=1, keepdim=True)
    hits = positives.gather(1, nearest)[:, 0][rows].float()
    return loss, hits.mean(), (count / candidates.sum(dim=1).clamp_min(1))[rows].mean()
