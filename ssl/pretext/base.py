"""The base class of pretext tasks, and common functions."""

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
    """A pretext task on encoded segments.

    A class is built as `Class(modalities, width, **arguments)`. If its constructor has parameters `segments` (number
    per clip) or `seconds` (length of a window), it gets them too.

    Class attributes, which an instance may also set:

    views: altered input that the task reads, by name: functions `(streams, present, generator) -> View`.
    teacher: whether it reads `encoded["teacher"]`, the clip encoded by a moving average of the backbone.
    without: modalities for which it reads `encoded["without_NAME"]`, fused with that modality hidden.
    alone: whether it works with a single modality.
    kind: kind of modality of which it needs at least one; empty: any kind.
    frames_per: factor by which its views reduce the number of video frames.
    across_clips: whether the loss compares the clips of a batch, so that it depends on the batch size.
    reads_summary: whether it reads `encoded["plain"].facts["summary/NAME"]`, the coarse content of a stream.
    orders_segments: whether it predicts the order of the segments of its `streams`.
    chance: accuracy of guessing if it is constant; otherwise `forward` returns it as `chance`.
    progress: share of the run that is done, set before every call.
    meanings: descriptions of its arguments, by name, for the config reference.
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
        """Calls `forward`. A single `Encoded` is the view `plain`. The default generator is that of torch.

        Raises `RequestError` if a view that the task reads is missing.
        """
        given = {PLAIN: encoded} if isinstance(encoded, Encoded) else encoded
        for name in self.reads:
            if name not in given:
                raise RequestError(
                    f"task {type(self).__name__} needs the view '{name}', which is missing: train the task with "
                    "PretextObjective, which encodes the views of its tasks"
                )
        return super().__call__(given, torch.default_generator if generator is None else generator)

    @property
    def reads(self) -> list[str]:
        """The names of all views that the task reads."""
        return [PLAIN, *self.views, *[TEACHER] * self.teacher, *(f"{WITHOUT}{name}" for name in self.without)]

    @abstractmethod
    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        """Computes the loss on one batch.

        encoded: the views of `reads`, by name, for the joined batch of all processes.
        generator: for all random draws.

        Returns `loss` (), and `accuracy` () if the task has one. Further keys are logged.
        """


def projection_head(width: int, hidden: int, out: int) -> nn.Module:
    """Two layers `width` -> `hidden` -> `out`, without batch norm, as absent modalities change the number of rows."""
    return ProjectionHead([(width, hidden, None, nn.GELU()), (hidden, out, None, None)])


def projection_heads(names: Sequence[str], width: int, hidden: int, out: int) -> nn.ModuleDict:
    """One `projection_head` per name."""
    return nn.ModuleDict({name: projection_head(width, hidden, out) for name in names})


def unit(rows: Tensor) -> Tensor:
    """Rows (..., D) scaled to length one.

    >>> unit(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    return F.normalize(rows, dim=-1)


def modality_pairs(
    modalities: Sequence[str], pairs: Sequence[Sequence[str]] | None, anchor: str | None = None
) -> list[tuple[str, str]]:
    """The pairs of modalities that a task compares.

    modalities: names; may include `fused`.
    pairs: the pairs; default: all unordered pairs of modalities.
    anchor: pairs this modality with every other one, instead of `pairs`.

    Raises `RequestError` for an unknown modality, and for a pair that is not two different modalities.

    >>> modality_pairs(["rgb", "flow", "audio"], None)
    [('rgb', 'flow'), ('rgb', 'audio'), ('flow', 'audio')]
    >>> modality_pairs(["rgb", "flow", "audio"], None, anchor="rgb")
    [('rgb', 'flow'), ('rgb', 'audio')]
    """
    for pair in pairs or ():
        for name in pair:
            check_source(name, modalities)
        if len(pair) != 2 or pair[0] == pair[1]:
            raise RequestError(f"a pair of a task must be two different modalities, not {list(pair)}")
    if anchor is not None:
        check_source(anchor, modalities)
        return [(anchor, name) for name in modalities if name not in (anchor, FUSED)]
    if pairs:
        return [(pair[0], pair[1]) for pair in pairs]
    return list(combinations([name for name in modalities if name != FUSED], 2))


def check_source(name: str, known: Sequence[str]) -> None:
    """Raises `RequestError` if `name` is not one of the `known` modalities."""
    if name not in known:
        raise choice_error("modality of a pretext task", name, known)


def names_in(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """All names of these pairs, sorted."""
    return sorted({name for pair in pairs for name in pair})


def source_feature(encoded: Encoded, source: str) -> tuple[Tensor, Tensor]:
    """Feature (B, K, D) and presence (B, K) of one modality or of the `fused` embedding."""
    if source == FUSED:
        return encoded.embedding, torch.stack(list(encoded.present.values())).any(dim=0)
    return encoded.features[source], encoded.present[source]


def clip_numbers(encoded: Encoded) -> Tensor:
    """The clip number (B * K,) of every row."""
    clips, segments = encoded.start.shape
    return torch.arange(clips, device=encoded.start.device).repeat_interleave(segments)


def segment_numbers(encoded: Encoded) -> Tensor:
    """The segment number (B * K,) of every row."""
    clips, segments = encoded.start.shape
    return torch.arange(segments, device=encoded.start.device).repeat(clips)


def zero_loss(*tensors: Tensor) -> Tensor:
    """Zero, connected to the gradient of every tensor: each rank needs all gradients, even without valid rows."""
    return sum((tensor.sum() * 0 for tensor in tensors), start=tensors[0].new_zeros(()))


def mean_of(losses: Sequence[Tensor], *idle: Tensor) -> Tensor:
    """The mean of the losses, or zero if there are none. Either gives the `idle` tensors a gradient of zero."""
    zero = zero_loss(*idle)
    return torch.stack(list(losses)).mean() + zero if losses else zero


def mean_accuracy(accuracies: Sequence[Tensor], chances: Sequence[Tensor] = ()) -> dict[str, Tensor]:
    """The mean `accuracy` and the mean `chance`.

    accuracies: one per pair or stream; NaN without valid rows.
    chances: likewise, if chance depends on the batch.

    NaN is skipped. A key without values is missing.
    """
    outputs = {}
    for name, values in (("accuracy", accuracies), ("chance", chances)):
        counted = [value for value in values if not bool(value.isnan())]
        if counted:
            outputs[name] = torch.stack(counted).mean()
    return outputs
