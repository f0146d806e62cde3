"""Clips decoded once and kept in memory, for benchmarks that train many small networks on the same ones."""

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
import torch
from modalgate.shards.batch import Batch
from modalgate.shards.index import Index
from modalgate.shards.stream import ClipRequest, ClipStream


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
