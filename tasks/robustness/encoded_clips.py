"""Encoder outputs of clips in memory, to fuse them repeatedly with the part of one modality replaced."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...fusion.backbone import Backbone, Encoded, Part
from ...fusion.mechanisms.quality import MEASURES, measure_quality
from ...shards.batch import Batch
from ...shards.transforms import Preparation


@dataclass(frozen=True)
class EncodedClips:
    """Encoder outputs of n clips with K views."""

    parts: dict[str, Part]
    """Features and tokens by modality."""
    quality: dict[str, Tensor]
    """Measured quality (n, K, Q) by modality, if the gate uses it."""
    present: dict[str, Tensor]
    """Whether each view has the modality (n, K), by modality."""
    start: Tensor
    """Start of each view in seconds (n, K)."""

    def rows(self, numbers: Tensor) -> "EncodedClips":
        """Returns the clips with these row numbers, in this order."""
        return EncodedClips(
            {name: change_part(part, lambda values: values[numbers]) for name, part in self.parts.items()},
            {name: column[numbers] for name, column in self.quality.items()},
            {name: mask[numbers] for name, mask in self.present.items()},
            self.start[numbers],
        )

    def with_parts_of(self, other: "EncodedClips", *modalities: str) -> "EncodedClips":
        """Returns the same clips with the parts of these modalities taken from `other`, if it has them."""
        names = [name for name in modalities if name in other.parts]
        return replace(
            self,
            parts=self.parts | {name: other.parts[name] for name in names},
            quality=self.quality | {name: other.quality[name] for name in names if name in other.quality},
        )

    def with_rows_of(self, other: "EncodedClips", numbers: Tensor) -> "EncodedClips":
        """Returns the same clips with the parts of the clips at `numbers` taken from `other`."""
        parts, quality = dict(self.parts), dict(self.quality)
        for name, part in other.parts.items():
            mine = parts[name]
            tokens = None
            if mine.tokens is not None and part.tokens is not None:
                tokens = mine.tokens.index_copy(0, numbers, part.tokens)
            parts[name] = Part(mine.features.index_copy(0, numbers, part.features), tokens)
        for name, column in other.quality.items():
            quality[name] = quality[name].index_copy(0, numbers, column)
        return replace(self, parts=parts, quality=quality)

    def fused(self, backbone: Backbone, kept: Iterable[str], device: torch.device | str = "cpu") -> Encoded:
        """Fuses the `kept` modalities, as if the others were absent."""
        names, kept = backbone.modalities, set(kept)
        never = torch.zeros(self.start.shape, dtype=torch.bool)
        present = {name: self.present.get(name, never) if name in kept else never for name in names}
        zeros = torch.zeros(*self.start.shape, backbone.width)
        nothing = Part(zeros, zeros.unsqueeze(-2) if backbone.token_projections else None)
        parts = {name: self.parts.get(name, nothing) if name in kept else nothing for name in names}
        quality = None
        if backbone.quality_measures:
            blank = torch.zeros(*self.start.shape, MEASURES)
            columns = [self.quality.get(name, blank) if name in kept else blank for name in names]
            quality = torch.stack(columns, dim=-2).to(device)
        return backbone.fuse(
            {name: change_part(part, lambda values: values.to(device)) for name, part in parts.items()},
            {name: mask.to(device) for name, mask in present.items()},
            self.start.to(device),
            quality,
        )


def encode_batch(
    backbone: Backbone, preparation: Preparation, batch: Batch, names: Iterable[str], device: torch.device | str
) -> EncodedClips:
    """Encodes these modalities of a batch. Modalities that no clip has are omitted."""
    there = [name for name in names if name in batch.streams]
    chosen = replace(batch, streams={name: batch.streams[name] for name in there}).to(device)
    streams = preparation(chosen)
    parts, quality = {}, {}
    for name in there:
        parts[name] = change_part(backbone.encode(name, streams[name], chosen.present[name]), Tensor.cpu)
        if backbone.quality_measures:
            quality[name] = measure_quality((name,), streams, chosen.present)[:, :, 0].cpu()
    return EncodedClips(parts, quality, batch.present, batch.start)


def change_part(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """Applies `change` to the features and tokens of a part."""
    return Part(change(part.features), None if part.tokens is None else change(part.tokens))


def join_clips(pieces: Sequence[EncodedClips], names: Sequence[str]) -> EncodedClips:
    """Concatenates clips, with these modalities. A modality that no clip has gets no part."""
    parts: dict[str, Part] = {}
    quality: dict[str, Tensor] = {}
    for name in names:
        like = next((piece.parts[name] for piece in pieces if name in piece.parts), None)
        if like is None:
            continue
        rows = [piece.parts.get(name) or _blank(like, len(piece.start)) for piece in pieces]
        tokens = None if like.tokens is None else torch.cat([row.tokens for row in rows if row.tokens is not None])
        parts[name] = Part(torch.cat([row.features for row in rows]), tokens)
        if any(name in piece.quality for piece in pieces):
            columns = [piece.quality.get(name, torch.zeros(*piece.start.shape, MEASURES)) for piece in pieces]
            quality[name] = torch.cat(columns)
    present = {name: torch.cat([piece.present[name] for piece in pieces]) for name in names}
    return EncodedClips(parts, quality, present, torch.cat([piece.start for piece in pieces]))


def _blank(like: Part, clips: int) -> Part:
    return change_part(like, lambda values: values.new_zeros(clips, *values.shape[1:]))
