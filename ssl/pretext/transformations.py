"""Contrast with a choice of which changes of a clip the embedding distinguishes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...fusion.backbone import Encoded
from ...shards.errors import choice_error
from ..views.views import ViewFunction, comparable_views, reverse
from .base import PLAIN, PretextTask, mean_accuracy, mean_of, modality_pairs, names_in, projection_heads, unit
from .contrastive import set_loss

CHOICES = ("distinctive", "invariant", "ignored")


class Gdt(PretextTask):
    """Generalised data transformations (GDT, Patrick et al. 2020): contrast with a choice for each transformation.

    Rows are all segments of every clip (with flow, from the view `forward`), and one reversed segment per clip from
    the view `reverse`. InfoNCE compares the rows of one modality with all rows of the other, in both directions of
    every pair. The row of the same clip, moment and direction is the positive; rows of other clips are negatives.
    `shift` (another segment of the clip) and `reversal` (the reversed segment) are each `distinctive` (a negative),
    `invariant` (a positive too) or `ignored` (neither). Rows that differ in both are negatives if either is
    distinctive, and positives if both are invariant.
    Defaults: both distinctive, the best in the paper; T .07, hidden 256, 128-d.

    The output `direction_accuracy` (chance .5) is the share of rows whose positive is more similar than the same
    segment in the other direction. It is measured where reversal is distinctive.

    Shortcuts it guards against: those of `ArrowOfTime` if reversal is distinctive, those of `Synchrony` if shift is.
    """

    views: Mapping[str, ViewFunction] = {"reverse": reverse}

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        shift: str = "distinctive",
        reversal: str = "distinctive",
        temperature: float = 0.07,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        for name, choice in (("shift", shift), ("reversal", reversal)):
            if choice not in CHOICES:
                raise choice_error(f"{name} of task gdt", choice, CHOICES)
        self.pairs = modality_pairs(modalities, pairs)
        self.views = comparable_views(self.views, names_in(self.pairs))
        self.shift, self.reversal, self.temperature = shift, reversal, temperature
        self.heads = projection_heads(names_in(self.pairs), width, hidden, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain, turned = encoded.get("forward", encoded[PLAIN]), encoded["reverse"]
        clips, segments = plain.start.shape
        device = plain.start.device
        clip = torch.cat(
            [torch.arange(clips, device=device).repeat_interleave(segments), torch.arange(clips).to(device)]
        )
        moment = torch.cat([torch.arange(segments, device=device).repeat(clips), turned.facts["segments"][:, 0]])
        backwards = torch.cat([torch.zeros(clips * segments), torch.ones(clips)]).bool().to(device)
        rows, present = {}, {}
        for name, head in self.heads.items():
            both = torch.cat([plain.features[name].flatten(0, 1), turned.features[name].flatten(0, 1)])
            rows[name] = unit(head(both))
            present[name] = torch.cat([plain.present[name].flatten(), turned.present[name].flatten()])
        same_clip = clip[:, None] == clip[None, :]
        same_moment = moment[:, None] == moment[None, :]
        same_way = backwards[:, None] == backwards[None, :]
        positives, negatives = same_clip, ~same_clip
        for same, choice in ((same_moment, self.shift), (same_way, self.reversal)):
            if choice != "invariant":
                positives = positives & same
            if choice == "distinctive":
                negatives = negatives | ~same
        forward = torch.arange(clips, device=device) * segments + moment[clips * segments :]
        backward = torch.arange(clips, device=device) + clips * segments
        losses, correct, chances, direction = [], [], [], []
        for first, second in self.pairs:
            for query, key in ((first, second), (second, first)):
                there = present[key][None, :]
                likeness = rows[query] @ rows[key].T
                both = present[query] & present[key]
                for same, other in ((forward, backward), (backward, forward)):
                    comparable = (both[same] & present[key][other]).nonzero()[:, 0]
                    nearer = likeness[same, same] > likeness[same, other]
                    direction.append(nearer[comparable].float())
                loss, accuracy, chance = set_loss(
                    likeness,
                    positives & there,
                    negatives & there,
                    both,
                    self.temperature,
                )
                losses.append(loss)
                correct.append(accuracy)
                chances.append(chance)
        outputs = {"loss": mean_of(losses, *rows.values()), **mean_accuracy(correct, chances)}
        told = torch.cat(direction)
        if self.reversal == "distinctive" and len(told):
            outputs["direction_accuracy"] = told.mean()
        return outputs
