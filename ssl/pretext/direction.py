"""Tasks on the direction and the pace of time."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ...shards.modality import MODALITIES
from ..views.views import MAX_RATE, ViewFunction, comparable_views, pace, reverse, take_segments
from .base import FUSED, PLAIN, PretextTask, check_source, mean_accuracy, mean_of, source_feature


class ArrowOfTime(PretextTask):
    """Arrow of time (Wei et al. 2018): does a segment run forwards or backwards?

    `Linear(D, 1)` and binary cross-entropy, on a segment and on the same segment reversed (the view `reverse`; with
    flow, against the view `forward`). Every clip gives one of each, so chance is one half. `streams`: `fused` or
    modalities; default: all modalities.

    Shortcuts that remain: the asymmetry of lossy codecs, and cameras that move forwards. Train on the time-symmetric
    twin of a corpus to measure them. Shortcut it guards against: the decay of sound (all streams are reversed
    together).
    """

    views: Mapping[str, ViewFunction] = {"reverse": reverse}
    alone = True
    chance = 0.5
    across_clips = False

    def __init__(self, modalities: Sequence[str], width: int, streams: Sequence[str] | None = None) -> None:
        super().__init__()
        for name in streams or ():
            check_source(name, [FUSED, *modalities])
        self.views = comparable_views(self.views, modalities)
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in streams or modalities})

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain, turned = encoded.get("forward", encoded[PLAIN]), encoded["reverse"]
        losses, correct, idle = [], [], []
        for name, head in self.heads.items():
            feature, present = source_feature(plain, name)
            ahead = take_segments(feature, turned.facts["segments"])
            back, kept = source_feature(turned, name)
            mask = take_segments(present, turned.facts["segments"]) & kept
            logits = torch.cat([head(ahead)[mask], head(back)[mask]])[:, 0]
            idle.append(logits)
            if len(logits):
                target = torch.cat([torch.ones(len(logits) // 2), torch.zeros(len(logits) // 2)]).to(logits)
                losses.append(F.binary_cross_entropy_with_logits(logits, target))
                correct.append(((logits > 0) == (target > 0.5)).float().mean())
        return {"loss": mean_of(losses, *idle), **mean_accuracy(correct)}


class Pace(PretextTask):
    """Pace prediction (Wang et al. 2020; SpeedNet, Benaim et al. 2020): consecutive frames, or every second frame?

    Two classes, `Linear(D, 2)`, on the view `pace`: one segment of every clip in half its frames. Both classes are
    equally frequent; if absent clips make one class larger, its surplus is skipped. The published form has four
    paces. `streams`: video modalities; default: all but flow, whose vectors do not change with the pace.

    Shortcut that remains on flow: errors of its estimate recur from frame to frame, also where nothing moves.
    Shortcuts it guards against: looped or padded windows (windows are cut), and the pitch of resampled sound (sound
    keeps its pace and is not used).
    """

    views: Mapping[str, ViewFunction] = {"pace": pace}
    alone = True
    frames_per = MAX_RATE
    chance = 0.5
    across_clips = False
    kind = "video"

    def __init__(self, modalities: Sequence[str], width: int, streams: Sequence[str] | None = None) -> None:
        super().__init__()
        videos = [name for name in modalities if MODALITIES[name].kind == "video"]
        for name in streams or ():
            check_source(name, videos)
        chosen = list(streams or [name for name in videos if not MODALITIES[name].flow_of] or videos)
        self.heads = nn.ModuleDict({name: nn.Linear(width, 2) for name in chosen})

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        view = encoded["pace"]
        losses, correct, idle = [], [], []
        for name, head in self.heads.items():
            mask = even_classes(view.facts["rate"], view.present[name][:, 0], 2)
            logits, target = head(view.features[name][:, 0])[mask], view.facts["rate"][mask]
            idle.append(logits)
            if len(target):
                losses.append(F.cross_entropy(logits, target))
                correct.append((logits.argmax(-1) == target).float().mean())
        return {"loss": mean_of(losses, *idle), **mean_accuracy(correct)}


def even_classes(target: Tensor, mask: Tensor, classes: int) -> Tensor:
    """A subset (N,) of `mask` (N,) with the same number of rows of each class of `target` (N,): the first ones.

    >>> even_classes(torch.tensor([0, 0, 1, 0]), torch.tensor([True, True, True, True]), 2)
    tensor([ True, False,  True, False])
    """
    rows = F.one_hot(target, classes).bool() & mask[:, None]
    fewest = rows.sum(dim=0).min()
    return (rows & (rows.cumsum(dim=0) <= fewest)).any(dim=1)
