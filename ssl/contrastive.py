"""Contrastive tasks across modalities."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fusion.backbone import Encoded
from ..shards.errors import RequestError, choice_error
from .gather import gather, gather_with_gradient, rank, sum_over_ranks, world_size
from .pretext import PretextTask, modality_pairs, projection_head, source_feature, unit, zero_loss


class CrossModal(PretextTask):
    """Cross-modal InfoNCE (CMC, Tian et al. 2020; CLIP, Radford et al. 2021) over pairs of modalities.

    `-1/2N sum_i [log softmax_j(v_i . a_j / T)_i + log softmax_j(a_i . v_j / T)_i]`, one row per (clip, segment).
    Negatives are other clips only: other segments of the same clip are masked, for they may rightly agree. Rows of
    all ranks are negatives. `pairs`: lists of two modalities (or `fused`); default all pairs of modalities ("full
    graph"). Defaults: T .07, heads hidden 256, 128-d. lightly's `NTXentLoss` is not this loss: it always adds
    negatives within a modality.

    Shortcut it guards against: silent or absent streams (`present`), and files told apart by encoding marks, which
    packing makes equal.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        temperature: float = 0.07,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs([*modalities, "fused"], pairs) if pairs else modality_pairs(modalities, None)
        self.temperature = temperature
        used = sorted({name for pair in self.pairs for name in pair})
        self.heads = nn.ModuleDict({name: projection_head(width, hidden, dimension) for name in used})

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        rows, present, clips = {}, {}, None
        for name, head in self.heads.items():
            feature, mask = source_feature(encoded["plain"], name)
            rows[name], present[name] = unit(head(feature)).flatten(0, 1), mask.flatten()
            clips = torch.arange(len(feature), device=feature.device).repeat_interleave(feature.shape[1])
        assert clips is not None
        losses, correct = [], []
        for first, second in self.pairs:
            valid = present[first] & present[second]
            loss, accuracy = cross_modal_loss(rows[first], rows[second], valid, clips, self.temperature)
            losses.append(loss)
            correct.append(accuracy)
        return {"loss": torch.stack(losses).mean() + zero_loss(*rows.values()), **mean_accuracy(correct)}


class AcrossTime(PretextTask):
    """Within-modality InfoNCE across time (CVRL, Qian et al. 2021): what lasts in a clip tells it from others.

    The loss of `CrossModal` between a modality's segments and the next segments of the same clips, under a head of
    its own, so that what two streams share at one moment is kept beside it. `streams`: the modalities; default all.
    Defaults: T .07, heads hidden 256, 128-d.

    Shortcut it guards against: one crop for all segments (augmentation is drawn per segment). A still background
    tells clips apart as well as what moves before it: RGB learns less from it than depth, flow or sound.
    """

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
            if name not in modalities:
                raise choice_error("modality of task across_time", name, modalities)
        self.temperature = temperature
        self.heads = nn.ModuleDict(
            {name: projection_head(width, hidden, dimension) for name in streams or modalities}
        )

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded["plain"]
        clips, segments = plain.start.shape
        numbers = torch.arange(clips, device=plain.start.device).repeat_interleave(segments)
        losses, correct = [], []
        for name, head in self.heads.items():
            rows, present = unit(head(plain.features[name])), plain.present[name]
            later, valid = rows.roll(-1, 1), (present & present.roll(-1, 1)).flatten()
            loss, accuracy = cross_modal_loss(
                rows.flatten(0, 1), later.flatten(0, 1), valid, numbers, self.temperature
            )
            losses.append(loss)
            correct.append(accuracy)
        return {"loss": torch.stack(losses).mean(), **mean_accuracy(correct)}


def mean_accuracy(accuracies: Sequence[Tensor]) -> dict[str, Tensor]:
    """Their mean as `accuracy`; those of no valid row are left out, for a zero would pull the mean down."""
    counted = [accuracy for accuracy in accuracies if not bool(accuracy.isnan())]
    return {"accuracy": torch.stack(counted).mean()} if counted else {}


def cross_modal_loss(
    first: Tensor, second: Tensor, valid: Tensor, clips: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """InfoNCE loss and top-1 retrieval accuracy between unit rows (N, D) of two modalities, over all ranks' rows.

    `valid` (N,): both modalities are there; `clips` (N,): the rank's clip number of each row. Rows of the same clip
    are no negatives of each other. The local loss is scaled so that its mean over ranks is the mean over all valid
    rows of all ranks; it is zero, with gradient, where there are none. Accuracy is NaN there.
    """
    all_valid = gather(valid)
    all_clips = gather(clips + rank() * (int(clips.max()) + 1))
    own = slice(rank() * len(first), (rank() + 1) * len(first))
    total = sum_over_ranks(valid.sum()).clamp_min(1) / world_size()
    same_clip = all_clips[own, None] == all_clips[None, :]
    diagonal = torch.zeros_like(same_clip)
    target = torch.arange(len(all_valid), device=first.device)[own]
    diagonal[torch.arange(len(first)), target] = True
    blocked = (~all_valid[None, :] | same_clip) & ~diagonal
    loss, hits = first.new_zeros(()), []
    for query, bank in ((first, gather_with_gradient(second)), (second, gather_with_gradient(first))):
        logits = (query @ bank.T / temperature).masked_fill(blocked, float("-inf"))
        losses = F.cross_entropy(logits, target, reduction="none")
        loss = loss + torch.where(valid, losses, torch.zeros_like(losses)).sum() / total / 2
        hits.append((logits.argmax(-1) == target)[valid].float())
    return loss, torch.cat(hits).mean()
