"""What encoders made of clips, kept in memory: fused again and again with one modality's part exchanged."""

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
    """n clips of K views: `parts` by modality, `quality` (n, K, Q) by modality where a gate is told of it, `present`
    (n, K) by modality, `start` (n, K) seconds."""

    parts: dict[str, Part]
    quality: dict[str, Tensor]
    present: dict[str, Tensor]
    start: Tensor

    def rows(self, numbers: Tensor) -> "EncodedClips":
        """These clips, in this order."""
        return EncodedClips(
            {name: change_part(part, lambda values: values[numbers]) for name, part in self.parts.items()},
            {name: column[numbers] for name, column in self.quality.items()},
            {name: mask[numbers] for name, mask in self.present.items()},
            self.start[numbers],
        )

    def with_parts_of(self, other: "EncodedClips", *modalities: str) -> "EncodedClips":
        """The same clips with these modalities' parts taken from `other`, where it has them."""
        names = [name for name in modalities if name in other.parts]
        return replace(
            self,
            parts=self.parts | {name: other.parts[name] for name in names},
            quality=self.quality | {name: other.quality[name] for name in names if name in other.quality},
        )

    def with_rows_of(self, other: "EncodedClips", numbers: Tensor) -> "EncodedClips":
        """The same clips, of which those at `numbers` have the parts that `other`'s clips have."""
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
        """The fusion of the `kept` modalities, as if the others were absent."""
        names, kept = backbone.modalities, set(kept)
        never = torch.zeros(self.start.shape, dtype=torch.bool)
        present = {name: self.present.get(name, never) if name in kept else never for name in names}
        zeros = torch.zeros(*self.start.shape, backbone.width)
        nothing = Part(zeros, zeros.unsqueeze(-2) if backbone.token_projections else None)
        parts = {name: self.parts.get(name, nothing) if name in kept else nothing for name in names}
        quality = None
        if getattr(backbone.fusion, "quality", 0):
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
    """What the backbone's encoders make of these modalities of a batch; those nobody has are left out."""
    there = [name for name in names if name in batch.streams]
    chosen = replace(batch, streams={name: batch.streams[name] for name in there}).to(device)
    streams = preparation(chosen)
    parts, quality = {}, {}
    for name in there:
        parts[name] = change_part(backbone.encode(name, streams[name], chosen.present[name]), Tensor.cpu)
        if getattr(backbone.fusion, "quality", 0):
            quality[name] = measure_quality((name,), streams, chosen.present)[:, :, 0].cpu()
    return EncodedClips(parts, quality, batch.present, batch.start)


def change_part(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """The part with `change` done to its features and to its tokens."""
    return Part(change(part.features), None if part.tokens is None else change(part.tokens))


def join_clips(pieces: Sequence[EncodedClips], names: Sequence[str]) -> EncodedClips:
    """All clips in one, of these modalities; a piece in which nobody has one has no part of it."""
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
