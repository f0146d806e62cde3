"""The clip stream: batches of segments from packed shards, as a pure function of seed, step, rank and world size."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from av.error import FFmpegError
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from .batch import Batch, Clip, stack
from .clip_spec import ClipRequest
from .clips.cut import cut_clip
from .clips.lifeline import end_with
from .clips.windows import random_starts, uniform_starts
from .errors import DataError, RequestError
from .index.labels import label_values
from .index.location import FolderReader
from .index.table import Index, Sample
from .modality import modality

# By key, the seconds at which the views of a clip begin.
Starts = Mapping[str, Sequence[float] | NDArray[np.float64]]


@dataclass(frozen=True)
class _Row:
    """One clip to read: `draw` seeds its random windows; without it these are the evaluation views, uniform or at
    `starts` seconds."""

    sample: int
    draw: tuple[int, ...] | None
    valid: bool = True
    starts: tuple[float, ...] | None = None


@dataclass(frozen=True)
class _Read:
    """What a worker hands over: the batch, and why clips were left out of it (key -> reason).

    A reason without a batch ends the stream.
    """

    batch: Batch | None
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass
class ClipStream:
    """Batches of the clips in `index`.

    Order and windows depend only on (seed, epoch, position), so a run resumed at a step sees what the uninterrupted
    run would have seen, whatever the number of worker processes. Members are read by byte offset: only the asked
    modalities are opened, and skipping to a step costs nothing. `classes`: label values in class order; `label`
    names their column. With `multilabel` a value names several of them (`fight|shouting`), and a clip's label is a
    row of 0 and 1. Raises `RequestError` for a modality no clip has and for an empty selection.

    A clip that cannot be decoded is replaced by the next one of the index while training, the same in every run.
    `damaged` holds the reasons of those this process has met, `on_damaged(key, reason)` is told of each once, and
    `DataError` ends the stream when they are more than `max_damaged` of the clips. Evaluation skips nothing: there
    one such clip is an error.
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
    multilabel: bool = False
    max_damaged: float = 0.05
    on_damaged: Callable[[str, str], None] | None = None
    damaged: dict[str, str] = field(default_factory=dict, init=False)
    steps_per_epoch: int = field(init=False)
    _step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.index.samples:
            raise RequestError(f"no clips are selected from '{self.index.folder}'")
        for name in self.request.modalities:
            modality(name)
            if name not in self.index.modalities:
                known = ", ".join(self.index.modalities)
                raise RequestError(f"no clip in '{self.index.folder}' has modality '{name}' (it has: {known})")
        self.steps_per_epoch = max(len(self.index.samples) // (self.batch_size * self.world), 1)

    @property
    def fingerprint(self) -> str:
        """A digest of the shards it reads from."""
        return self.index.fingerprint

    def train(self, start: int | None = None) -> Iterator[Batch]:
        """Endless shuffled batches with random windows, from global step `start`; as many on every rank.

        Without `start` it goes on from the state that was loaded, or from step 0.
        """
        self._step = self._step if start is None else start
        for batch in self._load(self._training_rows(self._step)):
            self._step += 1
            yield batch

    def __len__(self) -> int:
        """Batches in an epoch, on this process."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch, or the rest of one that was left; the next call gives the next epoch."""
        rest = self.steps_per_epoch - self._step % self.steps_per_epoch
        for batch in self._load(islice(self._training_rows(self._step), rest)):
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, int | str]:
        """The place after the last batch handed out by `train`; the batches workers hold ready do not count."""
        return {"step": self._step, "order": self._order()}

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Lets `train` go on where `state` was taken, without decoding what came before.

        Raises `RequestError` where another order was being followed: other clips, seed, batch size or ranks.
        """
        if state["order"] != self._order():
            raise RequestError("the saved place is of another stream: keep its clips, seed, batch size and ranks")
        self._step = int(state["step"])

    def _order(self) -> str:
        """A digest of all that the order of batches depends on."""
        what = [self.seed, self.world, self.batch_size, [sample.key for sample in self.index.samples]]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def evaluate(self, starts: Starts | None = None) -> Iterator[Batch]:
        """Every clip once over all ranks, in index order, with uniform views.

        `starts`: by key, the seconds at which a clip's views begin instead, equally many for all clips. All ranks
        get the same number of batches; rows that only pad have `valid` off.
        """
        count = len(self.index.samples)
        per_rank = -(-count // self.world)
        numbers = [self.rank + i * self.world for i in range(per_rank)]
        rows = [_Row(number % count, None, number < count, self._given(number % count, starts)) for number in numbers]
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return self._load((0, batch) for batch in batches)

    def _given(self, number: int, starts: Starts | None) -> tuple[float, ...] | None:
        return None if starts is None else tuple(map(float, starts[self.index.samples[number].key]))

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
        classes = {name: number for number, name in enumerate(self.classes)}
        dataset = _ClipFiles(self.index, self.request, self.label, classes, self.multilabel)
        # Where this process is killed, nobody tells the workers but the pipe.
        theirs, ours = multiprocessing.Pipe(duplex=False)
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=batches,
            num_workers=self.workers,
            # Forking a process that already runs decoder or OpenMP threads can deadlock the child.
            multiprocessing_context="forkserver" if self.workers else None,
            prefetch_factor=3 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=partial(_begin_worker, theirs) if self.workers else None,
        )
        with theirs, ours:
            yield from self._checked(loader)

    def _checked(self, loader: Iterable[_Read]) -> Iterator[Batch]:
        """The batches, as long as the damaged clips among them are not too many."""
        for read in loader:
            first = next(iter(read.damaged.values()), "")
            for key, reason in read.damaged.items():
                if key not in self.damaged and self.on_damaged is not None:
                    self.on_damaged(key, reason)
                self.damaged[key] = reason
            if read.batch is None:
                raise DataError(first)
            if len(self.damaged) > self.max_damaged * len(self.index.samples):
                raise DataError(
                    f"{len(self.damaged)} of {len(self.index.samples)} clips cannot be decoded, more than "
                    f"{self.max_damaged:.0%}: {first}"
                )
            yield read.batch


def _begin_worker(parent: Any, worker: int) -> None:
    end_with(parent)


class _ClipFiles(Dataset[_Read]):
    """Reads batches of clips from the tars."""

    def __init__(
        self, index: Index, request: ClipRequest, label: str | None, classes: dict[str, int], multilabel: bool
    ) -> None:
        self.index, self.request, self.label, self.classes = index, request, label, classes
        self.multilabel = multilabel
        self.files = FolderReader(index.folder)

    def __getitem__(self, request: tuple[int, list[_Row]]) -> _Read:
        seed, rows = request
        clips, damaged = [], {}
        for row in rows:
            clip = self._read_row(row, damaged)
            if clip is None:
                # Returned, not raised: the loader would bury the sentence in a worker's traceback.
                return _Read(None, damaged)
            clips.append(clip)
        return _Read(stack(clips, seed), damaged)

    def _read_row(self, row: _Row, damaged: dict[str, str]) -> Clip | None:
        """The row's clip or, in training, the next of the index that can be decoded; none where there is none."""
        samples = self.index.samples
        for step in range(len(samples) if row.draw is not None else 1):
            sample = samples[(row.sample + step) % len(samples)]
            try:
                return self._read_clip(sample, row)
            except (OSError, ValueError, EOFError, FFmpegError, DataError) as error:
                where = f"clip '{sample.key}' in shard '{sample.shard}'"
                damaged[sample.key] = f"{where} cannot be decoded: {error}"
        return None

    def _read_clip(self, sample: Sample, row: _Row) -> Clip:
        request, settings = self.request, self.index.settings
        covered = request.covered(sample.duration)
        generator = np.random.default_rng(row.draw) if row.draw is not None else None
        if row.starts is not None:
            starts, crop = np.array(row.starts), (0.5, 0.5)
        elif generator is None:
            starts = uniform_starts(sample.duration, covered, request.segments)
            crop = (0.5, 0.5)
        else:
            starts = random_starts(sample.duration, covered, request.segments, generator)
            crop = (float(generator.random()), float(generator.random()))
        window = request.seconds, request.frames, request.size
        cut = cut_clip(self.files, sample, settings, request.modalities, starts, *window, crop, covered)
        streams = {name: torch.from_numpy(values) for name, values in cut.items()}
        label = None if self.label is None else self._label(sample.labels[self.label])
        present = {name: name in streams for name in request.modalities}
        return Clip(streams, present, sample.key, torch.from_numpy(starts).float(), label, row.valid)

    def _label(self, text: str) -> int | list[int]:
        if not self.multilabel:
            return self.classes[text]
        values = label_values(text)
        return [int(name in values) for name in self.classes]
