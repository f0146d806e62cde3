"""The clip stream: batches of segments from packed shards, as a pure function of seed, step, rank and world size."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from av.error import FFmpegError
from torch.utils.data import DataLoader, Dataset

from .batch import Batch, Clip, stack
from .decode import decode_frames, decode_signal, decode_sound
from .errors import DataError, RequestError
from .index import Index, Sample
from .modality import modality
from .windows import frame_times, random_starts, uniform_starts


@dataclass(frozen=True)
class ClipRequest:
    """What to cut from every clip: `segments` windows of `seconds`, `frames` video frames each, `size` px square."""

    modalities: tuple[str, ...]
    segments: int
    seconds: float
    frames: int
    size: int


@dataclass(frozen=True)
class _Row:
    """One clip to read: `draw` seeds its random windows, `None` asks for uniform evaluation views."""

    sample: int
    draw: tuple[int, ...] | None
    valid: bool = True


@dataclass
class ClipStream:
    """Batches of the clips in `index`.

    Order and windows depend only on (seed, epoch, position), so a run resumed at a step sees what the uninterrupted
    run would have seen, whatever the number of worker processes. Members are read by byte offset: only the asked
    modalities are opened, and skipping to a step costs nothing. `classes`: label values in class order; `label`
    names their column. Raises `RequestError` for a modality no clip has and for an empty selection.
    """

    index: Index
    request: ClipRequest
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    workers: int = 0
    label: str | None = None
    classes: Sequence[str] = ()
    steps_per_epoch: int = field(init=False)

    def __post_init__(self) -> None:
        if not self.index.samples:
            raise RequestError(f"no clips are selected from '{self.index.folder}'")
        for name in self.request.modalities:
            modality(name)
            if name not in self.index.modalities:
                known = ", ".join(self.index.modalities)
                raise RequestError(f"no clip in '{self.index.folder}' has modality '{name}' (it has: {known})")
        self.steps_per_epoch = max(len(self.index.samples) // (self.batch_size * self.world), 1)

    def train(self, start: int = 0) -> Iterator[Batch]:
        """Endless shuffled batches with random windows, from global step `start`; as many on every rank."""
        return self._load(self._training_rows(start))

    def evaluate(self) -> Iterator[Batch]:
        """Every clip once over all ranks, in index order, with uniform views.

        All ranks get the same number of batches; rows that only pad have `valid` off.
        """
        count = len(self.index.samples)
        per_rank = -(-count // self.world)
        numbers = [self.rank + i * self.world for i in range(per_rank)]
        rows = [_Row(number % count, None, number < count) for number in numbers]
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return self._load((0, batch) for batch in batches)

    def _training_rows(self, start: int) -> Iterator[tuple[int, list[_Row]]]:
        step = start
        while True:
            epoch, batch = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.index.samples))
            order = np.resize(order, self.steps_per_epoch * self.batch_size * self.world)
            first = (batch * self.world + self.rank) * self.batch_size
            rows = [
                _Row(int(order[place]), (self.seed, epoch, place)) for place in range(first, first + self.batch_size)
            ]
            # The generator of on-device draws must differ between ranks and steps, and never between resumes.
            yield int(np.random.SeedSequence([self.seed, step, self.rank]).generate_state(1)[0]), rows
            step += 1

    def _load(self, batches: Any) -> Iterator[Batch]:
        dataset = _ClipFiles(self.index, self.request, self.label, {c: i for i, c in enumerate(self.classes)})
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=batches,
            num_workers=self.workers,
            # Forking a process that already runs decoder or OpenMP threads can deadlock the child.
            multiprocessing_context="forkserver" if self.workers else None,
            prefetch_factor=3 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch


class _ClipFiles(Dataset[Batch | DataError]):
    """Reads batches of clips from the tars; holds the open files of its own process."""

    def __init__(self, index: Index, request: ClipRequest, label: str | None, classes: dict[str, int]) -> None:
        self.index, self.request, self.label, self.classes = index, request, label, classes
        self.files: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"files": {}}

    def __getitem__(self, request: tuple[int, list[_Row]]) -> Batch | DataError:
        seed, rows = request
        clips = []
        for row in rows:
            sample = self.index.samples[row.sample]
            try:
                clips.append(self._read_clip(sample, row))
            except (OSError, ValueError, EOFError, FFmpegError) as error:
                # Returned, not raised: the loader would bury the sentence in a worker's traceback.
                return DataError(f"clip '{sample.key}' in shard '{sample.shard}' cannot be decoded: {error}")
        return stack(clips, seed)

    def _read_clip(self, sample: Sample, row: _Row) -> Clip:
        request, settings = self.request, self.index.settings
        generator = np.random.default_rng(row.draw) if row.draw is not None else None
        if generator is None:
            starts = uniform_starts(sample.duration, request.seconds, request.segments)
            crop = (0.5, 0.5)
        else:
            starts = random_starts(sample.duration, request.seconds, request.segments, generator)
            crop = (float(generator.random()), float(generator.random()))
        streams: dict[str, torch.Tensor] = {}
        for name in request.modalities:
            entry = modality(name)
            if entry.suffix not in sample.members:
                continue
            data = self._member(sample, entry.suffix)
            if entry.kind == "video":
                times = frame_times(starts, request.seconds, request.frames)
                array = decode_frames(data, times, settings.fps, entry, request.size, crop)
            elif entry.kind == "audio":
                array = decode_sound(data, starts, request.seconds, settings.sample_rate)
            else:
                rate = float(json.loads(self._member(sample, "json"))["modalities"][name]["rate"])
                array = decode_signal(data, rate, starts, request.seconds, entry.rate or rate)
            streams[name] = torch.from_numpy(array)
        label = None if self.label is None else self.classes[sample.labels[self.label]]
        present = {name: name in streams for name in request.modalities}
        return Clip(streams, present, sample.key, torch.from_numpy(starts).float(), label, row.valid)

    def _member(self, sample: Sample, suffix: str) -> bytes:
        offset, size = sample.members[suffix]
        if sample.shard not in self.files:
            self.files[sample.shard] = os.open(self.index.folder / sample.shard, os.O_RDONLY)
        return os.pread(self.files[sample.shard], size, offset)
