"""The base class of pretext tasks, and functions they share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from ...shards.errors import RequestError, choice_error
from ..views.views import ViewFunction

PLAIN, TEACHER, WITHOUT, FUSED = "plain", "teacher", "without_", "fused"


class PretextTask(nn.Module):
    """A task over segments that were encoded once.

    A class is built as `Class(modalities, width, **arguments)`; it also gets `segments` (how many per clip) and
    `seconds` (the length of a window) where its constructor has parameters of these names.

    Class attributes, which an instance may set as well:

    views: altered input that it reads, by name: a function `(streams, present, generator) -> View` for each.
    teacher: whether it reads `encoded["teacher"]`, the clip as it is under a moving average of the backbone.
    without: modalities of which it reads `encoded["without_NAME"]`, fused with that modality hidden.
    alone: whether it makes sense of a single modality.
    kind: the kind of modality of which it needs at least one; empty: any will do.
    frames_per: by how much its views divide the number of video frames; encoders of frame stacks need a multiple.
    across_clips: whether the loss compares clips of a batch, so that a batch cut in pieces is another loss.
    reads_summary: whether it reads `encoded["plain"].facts["summary/NAME"]`, the coarse content of a stream.
    orders_segments: whether it predicts the order of the segments of its `streams`.
    chance: the accuracy of guessing where that is always the same; else it is returned beside the accuracy.
    progress: the share of the run that is done, set before every call.
    meanings: what an argument of its own does, by name, for the config reference.
    """

    views: Mapping[str, ViewFunction] = {}
    teacher = False
    without: tuple[str, ...] = ()
    alone = False
    kind: str = ""
    frames_per = 1
    across_clips = True
    reads_summary = False
    orders_segments = False
    chance: float | None = None
    progress: float = 0.0
    meanings: Mapping[str, str] = {}

    def __call__(
        self, encoded: Mapping[str, Encoded] | Encoded, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """`forward`, also of a single `Encoded` for the view `plain`, and with torch's generator by default."""
        given = {PLAIN: encoded} if isinstance(encoded, Encoded) else encoded
        for name in self.reads:
            if name not in given:
                raise RequestError(
                    f"task {type(self).__name__} reads the view '{name}', which is not given: train it by "
                    "PretextObjective, which encodes the views of its tasks"
                )
        return super().__call__(given, torch.default_generator if generator is None else generator)

    @property
    def reads(self) -> list[str]:
        """The names of all that it reads of a batch."""
        return [PLAIN, *self.views, *[TEACHER] * self.teacher, *(f"{WITHOUT}{name}" for name in self.without)]

    @abstractmethod
    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        """The task on one batch.

        encoded: an `Encoded` by name of what the task reads, of the joined batch of all processes.
        generator: the batch's own, for every draw.

        Returns `loss` (), and `accuracy` () where the task has one.
        """


def projection_head(width: int, hidden: int, out: int) -> nn.Module:
    """Two layers without batch norm, because the number of rows varies where modalities are missing."""
    return ProjectionHead([(width, hidden, None, nn.GELU()), (hidden, out, None, None)])


def projection_heads(names: Sequence[str], width: int, hidden: int, out: int) -> nn.ModuleDict:
    """One `projection_head` per name."""
    return nn.ModuleDict({name: projection_head(width, hidden, out) for name in names})


def unit(rows: Tensor) -> Tensor:
    """Rows (..., D) scaled to length one."""
    return F.normalize(rows, dim=-1)


def modality_pairs(
    modalities: Sequence[str], pairs: Sequence[Sequence[str]] | None, anchor: str | None = None
) -> list[tuple[str, str]]:
    """The pairs that a task compares: all unordered pairs of modalities, those with `anchor`, or `pairs`.

    Raises `RequestError` for an unknown modality, and for an entry that is not two different modalities.
    """
    for pair in pairs or ():
        for name in pair:
            check_source(name, modalities)
        if len(pair) != 2 or pair[0] == pair[1]:
            raise RequestError(f"a task's pair names two different modalities, not {list(pair)}")
    if anchor is not None:
        check_source(anchor, modalities)
        return [(anchor, name) for name in modalities if name not in (anchor, FUSED)]
    if pairs:
        return [(pair[0], pair[1]) for pair in pairs]
    return list(combinations([name for name in modalities if name != FUSED], 2))


def check_source(name: str, known: Sequence[str]) -> None:
    """`RequestError` for an unknown source of a task."""
    if name not in known:
        raise choice_error("modality of a pretext task", name, known)


def names_in(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """All names of these pairs, sorted."""
    return sorted({name for pair in pairs for name in pair})


def source_feature(encoded: Encoded, source: str) -> tuple[Tensor, Tensor]:
    """Feature (B, K, D) and presence (B, K) of one modality, or of the `fused` embedding."""
    if source == FUSED:
        return encoded.embedding, torch.stack(list(encoded.present.values())).any(dim=0)
    return encoded.features[source], encoded.present[source]


def clip_numbers(encoded: Encoded) -> Tensor:
    """The clip number (B K,) of every row."""
    clips, segments = encoded.start.shape
    return torch.arange(clips, device=encoded.start.device).repeat_interleave(segments)


def segment_numbers(encoded: Encoded) -> Tensor:
    """The segment number (B K,) of every row."""
    clips, segments = encoded.start.shape
    return torch.arange(segments, device=encoded.start.device).repeat(clips)


def zero_loss(*tensors: Tensor) -> Tensor:
    """Zero with a gradient to every tensor: where there is no valid row, all ranks still need gradients."""
    return sum((tensor.sum() * 0 for tensor in tensors), start=tensors[0].new_zeros(()))


def mean_of(losses: Sequence[Tensor], *idle: Tensor) -> Tensor:
    """The mean of the losses, or zero if there are none; both have a (zero) gradient to the `idle` tensors."""
    zero = zero_loss(*idle)
    return torch.stack(list(losses)).mean() + zero if losses else zero


def mean_accuracy(accuracies: Sequence[Tensor], chances: Sequence[Tensor] = ()) -> dict[str, Tensor]:
    """`accuracy`, the mean of accuracies, and `chance`, the mean of chances where those depend on the batch.

    NaN, the value of no valid row, is skipped. A key without a value is not returned.
    """
    outputs = {}
    for name, values in (("accuracy", accuracies), ("chance", chances)):
        counted = [value for value in values if not bool(value.isnan())]
        if counted:
            outputs[name] = torch.stack(counted).mean()
    return outputs
