"""Contrastive tasks with negatives and positives from earlier batches."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...fusion.backbone import Encoded
from .base import (
    PLAIN,
    TEACHER,
    PretextTask,
    mean_accuracy,
    mean_of,
    modality_pairs,
    names_in,
    projection_heads,
    unit,
)
from .contrastive import set_loss


class RowQueue(nn.Module):
    """The last `size` rows of several streams, and the clip of each row.

    streams: number of streams.
    size: number of rows per stream.
    dimension: D.

    It is part of the checkpoint. The memory bank of lightly is not in the state dict, so a resumed run would start
    with an empty one.
    """

    rows: Tensor
    present: Tensor
    clips: Tensor
    place: Tensor

    def __init__(self, streams: int, size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(streams, size, dimension))
        self.register_buffer("present", torch.zeros(streams, size, dtype=torch.bool))
        self.register_buffer("clips", torch.full((size,), -1, dtype=torch.long))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, rows: Tensor, present: Tensor, clips: Tensor) -> None:
        """Replaces the oldest rows.

        rows: (streams, N, D).
        present: (streams, N) bool.
        clips: (N,), clip of each row.
        """
        size = self.rows.shape[1]
        rows, present, clips = rows[:, -size:], present[:, -size:], clips[-size:]
        places = (int(self.place) + torch.arange(rows.shape[1], device=rows.device)) % size
        self.rows[:, places] = rows.to(self.rows.dtype)
        self.present[:, places] = present
        self.clips[places] = clips
        self.place.copy_((self.place + rows.shape[1]) % size)


class MomentumQueue(PretextTask):
    """Cross-modal contrast against a momentum queue (MoCo, He et al. 2020).

    Query: the feature of one modality, projected by a head. Key: the feature of another modality from an exponential
    moving average of the backbone, projected by a moving average of its head. Negatives: the keys of other clips in
    the batch and in the queue. InfoNCE in both directions of every pair. Defaults: queue 2048 (published: 16384 and
    more), T .07, momentum of the heads .99, hidden 256, 128-d.

    Shortcuts it guards against: the age of a key, and negatives from the same clip. Keys change as the encoder
    trains, so with negatives from the queue only (as published) a query could recognise its key by age. Keys of the
    batch have the same age. If the queue holds more than an epoch, rows of the same clip are not negatives.
    """

    teacher = True

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        size: int = 2048,
        temperature: float = 0.07,
        momentum: float = 0.99,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs(modalities, pairs)
        self.names = names_in(self.pairs)
        self.temperature, self.momentum = temperature, momentum
        self.heads = projection_heads(self.names, width, hidden, dimension)
        self.slow_heads = projection_heads(self.names, width, hidden, dimension).requires_grad_(False)
        self.slow_heads.load_state_dict(self.heads.state_dict())
        self.queue = RowQueue(len(self.names), size, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain, teacher = encoded[PLAIN], encoded[TEACHER]
        if self.training:
            self._follow()
        clips = plain.facts["clip"].repeat_interleave(plain.start.shape[1])
        queries = {name: unit(self.heads[name](plain.features[name])).flatten(0, 1) for name in self.names}
        present = {name: plain.present[name].flatten() for name in self.names}
        with torch.no_grad():
            keys = {n: unit(self.slow_heads[n](teacher.features[n])).flatten(0, 1) for n in self.names}
        losses, correct, chances = [], [], []
        strangers = clips[:, None] != torch.cat([clips, self.queue.clips])[None, :]
        positives = torch.eye(len(clips), strangers.shape[1], dtype=torch.bool, device=clips.device)
        for first, second in self.pairs:
            for query, key in ((first, second), (second, first)):
                place = self.names.index(key)
                bank = torch.cat([keys[key], self.queue.rows[place].to(keys[key].dtype)])
                negatives = strangers & torch.cat([present[key], self.queue.present[place]])
                valid = present[query] & present[key]
                loss, accuracy, chance = set_loss(
                    queries[query] @ bank.T, positives, negatives, valid, self.temperature
                )
                losses.append(loss)
                correct.append(accuracy)
                chances.append(chance)
        if self.training:
            stacked = torch.stack([keys[name] for name in self.names])
            self.queue.push(stacked, torch.stack([present[name] for name in self.names]), clips)
        return {"loss": mean_of(losses, *queries.values()), **mean_accuracy(correct, chances)}

    @torch.no_grad()
    def _follow(self) -> None:
        for slow, fast in zip(self.slow_heads.parameters(), self.heads.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)


class Agreement(PretextTask):
    """Audio-visual instance discrimination with cross-modal agreement (AVID-CMA, Morgado et al. 2021).

    Cross-modal InfoNCE with negatives from the other clips of the batch and of the queue (AVID). After the share
    `warmup` of the run, a within-modality term is added. Its positives are the `positives` rows of the queue with the
    highest agreement `min(v . v_j, a . a_j)`: clips that both look and sound similar. Other rows of other clips are
    negatives. Rows of the same clip are neither. Defaults: queue 1024 of detached rows (the published banks hold
    every clip), 8 positives (published: 32), warm-up .5, T .07, hidden 256, 128-d.

    Shortcuts it guards against: the age of a row, as in `MomentumQueue` (rows change faster here, without a moving
    average), and positives that one modality alone finds similar, which would repeat its errors.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        pairs: Sequence[Sequence[str]] | None = None,
        size: int = 1024,
        positives: int = 8,
        warmup: float = 0.5,
        temperature: float = 0.07,
        hidden: int = 256,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        self.pairs = modality_pairs(modalities, pairs)
        self.names = names_in(self.pairs)
        self.positives, self.warmup, self.temperature = positives, warmup, temperature
        self.heads = projection_heads(self.names, width, hidden, dimension)
        self.queue = RowQueue(len(self.names), size, dimension)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        plain = encoded[PLAIN]
        clips = plain.facts["clip"].repeat_interleave(plain.start.shape[1])
        rows = {name: unit(self.heads[name](plain.features[name])).flatten(0, 1) for name in self.names}
        present = {name: plain.present[name].flatten() for name in self.names}
        strangers = clips[:, None] != torch.cat([clips, self.queue.clips])[None, :]
        positives = torch.eye(len(clips), strangers.shape[1], dtype=torch.bool, device=clips.device)
        losses, correct, chances = [], [], []
        for first, second in self.pairs:
            valid = present[first] & present[second]
            # Copied: the queue is written before the backward pass reads what it held.
            banks = {n: self.queue.rows[self.names.index(n)].to(rows[n].dtype, copy=True) for n in (first, second)}
            both = self.queue.present[self.names.index(first)] & self.queue.present[self.names.index(second)]
            others = strangers[:, len(clips) :] & both
            for query, key in ((first, second), (second, first)):
                bank = torch.cat([rows[key], banks[key]])
                negatives = strangers & torch.cat([present[key], both])
                loss, accuracy, chance = set_loss(rows[query] @ bank.T, positives, negatives, valid, self.temperature)
                losses.append(loss)
                correct.append(accuracy)
                chances.append(chance)
            count = int(others.sum(dim=1).min())
            if self.progress >= self.warmup and count > self.positives:
                within = {name: rows[name] @ banks[name].T for name in (first, second)}
                agreed = torch.minimum(within[first], within[second]).detach().masked_fill(~others, float("-inf"))
                mined = torch.zeros_like(others).scatter(1, agreed.topk(self.positives, dim=1).indices, True)
                for name in (first, second):
                    loss, _, _ = set_loss(within[name], mined, others & ~mined, valid, self.temperature)
                    losses.append(loss)
        if self.training:
            stacked = torch.stack([rows[name].detach() for name in self.names])
            self.queue.push(stacked, torch.stack([present[name] for name in self.names]), clips)
        return {"loss": mean_of(losses, *rows.values()), **mean_accuracy(correct, chances)}
