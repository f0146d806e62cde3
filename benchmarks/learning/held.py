"""Clips decoded once and kept in memory, for benchmarks that train many small networks on the same ones."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from modalgate.shards.batch import Batch
from modalgate.shards.clips.windows import random_starts, uniform_starts
from modalgate.shards.index.table import Index
from modalgate.shards.modality import modality
from modalgate.shards.stream import ClipRequest, ClipStream


def total_loss(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the losses of an objective's outputs, ()."""
    return torch.stack([value for name, value in outputs.items() if name.endswith("/loss")]).sum()


class Held:
    """Clips cut at their uniform windows; batches of `size` are drawn anew by number."""

    workers = 0

    def __init__(self, index: Index, request: ClipRequest, size: int) -> None:
        self.size = size
        self.clips = list(ClipStream(index, request, 1, workers=0).evaluate())

    def train(self, start: int) -> Iterator[Batch]:
        for number in count(start):
            rows = np.random.default_rng(number).choice(len(self.clips), self.size, replace=False)
            yield self.join([self.clips[row] for row in rows], number)

    def evaluate(self) -> Iterator[Batch]:
        for number, first in enumerate(range(0, len(self.clips), self.size)):
            yield self.join(self.clips[first : first + self.size], number)

    @staticmethod
    def join(clips: Sequence[Batch], seed: int) -> Batch:
        return Batch(
            {name: torch.cat([clip.streams[name] for clip in clips]) for name in clips[0].streams},
            {name: torch.cat([clip.present[name] for clip in clips]) for name in clips[0].present},
            [key for clip in clips for key in clip.key],
            torch.cat([clip.start for clip in clips]),
            valid=torch.ones(len(clips), dtype=torch.bool),
            seed=seed,
        )


class HeldWhole(Held):
    """Clips decoded once and whole: every batch cuts its windows anew, at random frames, as the clip stream does.

    All clips have the duration of the first; a window holds every frame of its seconds.
    """

    request: ClipRequest

    def __init__(self, index: Index, request: ClipRequest, size: int) -> None:
        self.request, self.settings = request, index.settings
        self.duration = index.samples[0].duration
        frames = round(self.duration * self.settings.fps)
        super().__init__(index, replace(request, segments=1, seconds=self.duration, frames=frames), size)

    def asked(self, request: ClipRequest, size: int) -> "HeldWhole":
        """Other windows, of some of the modalities, of the same clips."""
        other = copy(self)
        other.request, other.size = request, size
        return other

    def train(self, start: int) -> Iterator[Batch]:
        for whole in super().train(start):
            rng = np.random.default_rng([whole.seed, 1])
            asked = self.usable, self.request.seconds, self.request.segments
            yield self.cut(whole, np.stack([random_starts(*asked, rng) for _ in whole.key]))

    def evaluate(self) -> Iterator[Batch]:
        starts = uniform_starts(self.usable, self.request.seconds, self.request.segments)
        for whole in super().evaluate():
            yield self.cut(whole, np.tile(starts, (len(whole), 1)))

    @property
    def usable(self) -> float:
        """Seconds of a clip without its last frame if there is flow: its motion is estimated backward."""
        flow = any(modality(name).flow_of for name in self.request.modalities)
        return self.duration - flow / self.settings.fps

    def cut(self, whole: Batch, starts: np.ndarray) -> Batch:
        """Windows (B, K, ...) of clips (B, 1, ...), from the frames nearest to `starts` (B, K) in seconds."""
        first = torch.from_numpy(np.round(starts * self.settings.fps)).long()
        rows = torch.arange(len(whole))[:, None, None]
        streams = {}
        for name in self.request.modalities:
            per_frame = 1 if modality(name).kind == "video" else round(self.settings.sample_rate / self.settings.fps)
            places = first[..., None] * per_frame + torch.arange(self.request.frames * per_frame)
            streams[name] = whole.streams[name][:, 0][rows, places]
        present = {name: whole.present[name].expand(first.shape) for name in self.request.modalities}
        start = first / self.settings.fps
        return Batch(streams, present, whole.key, start, valid=whole.valid, seed=whole.seed)
