"""The clip stream: batches of segments from packed shards, determined by seed, step, rank and world size."""

import hashlib
import json
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from .batch import Batch, Clip, stack
from .clip_spec import ClipRequest
from .clips.cut import cut_clip
from .clips.lifeline import end_with, leave_stops, start_server
from .clips.windows import random_starts, uniform_starts
from .errors import DataError, RequestError, choice_error
from .index.labels import label_values
from .index.location import FolderReader
from .index.table import Index, Sample
from .index.unreadable import UNREADABLE, reason_of
from .modality import modality

# Start times in seconds of each clip's views, by clip key.
Starts = Mapping[str, Sequence[float] | NDArray[np.float64]]


@dataclass(frozen=True)
class _Row:
    """One clip to read.

    - `sample`: position in the index.
    - `draw`: seed of the random windows. None: evaluation views.
    - `starts`: start times of the evaluation views in seconds. None: spread evenly.
    - `skip`: in evaluation, whether the next decodable clip pads the batch if this one is damaged.
    """

    sample: int
    draw: tuple[int, ...] | None
    valid: bool = True
    starts: tuple[float, ...] | None = None
    skip: bool = False


@dataclass(frozen=True)
class _Read:
    """What a worker returns: a batch, and the reason for each skipped clip by key.

    Without a batch, the reason ends the stream. `fault`: why the worker cannot read on, whatever the clip.
    """

    batch: Batch | None
    damaged: dict[str, str] = field(default_factory=dict)
    fault: str = ""

    def pin_memory(self) -> "_Read":
        """Called by the data loader."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


@dataclass
class ClipStream:
    """Batches of the clips in `index`.

    Order and windows depend only on (seed, epoch, position). A run resumed at a step sees the same batches as an
    uninterrupted run, with any number of workers. Members are read by byte offset: only the requested modalities are
    opened, and skipping to a step costs nothing.

    - `batch_size`: clips per batch and rank.
    - `rank`, `world`: number of this process and of all processes.
    - `workers`: worker processes. 0: read in this process.
    - `label`: label column. None: batches have no labels.
    - `classes`: label values in class order.
    - `multilabel`: a value names several classes (`fight|shouting`), or none (`|`); a clip's label is a row of 0 and
      1.
    - `max_damaged`: largest share of undecodable clips in training.
    - `on_damaged`: called once with (key, reason) for each undecodable clip.
    - `damaged`: reason by key of the undecodable clips that this process has met.

    In training, a clip that cannot be decoded is replaced by the next clip of the index, the same in every run.
    Evaluation raises `DataError` for the first such clip, or skips it with `skip_damaged`.

    Raises `RequestError` for an empty selection, for a modality that no clip of the shards has, for
    numbers out of range, and for labels that do not fit: an
    unknown column, no classes, a clip without a label, or a value that is not one of `classes`. Iteration raises
    `DataError` for more than `max_damaged` undecodable clips, and `RequestError` if the process may not open enough
    files.
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
            # A selection may lack a modality that others have: then it is absent in every batch.
            if name not in self.index.packed:
                known = ", ".join(self.index.packed)
                raise RequestError(f"no clip in '{self.index.folder}' has modality '{name}' (it has: {known})")
        if self.label is not None:
            self._check_labels(self.label)
        self._check_numbers()
        self.steps_per_epoch = max(len(self.index.samples) // (self.batch_size * self.world), 1)

    def _check_numbers(self) -> None:
        for name, valid, right in (
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("world", self.world >= 1, "at least 1"),
            ("rank", 0 <= self.rank < max(self.world, 1), f"0 to {self.world - 1}"),
            ("workers", self.workers >= 0, "at least 0"),
            ("max_damaged", 0 <= self.max_damaged <= 1, "0 to 1"),
        ):
            if not valid:
                raise RequestError(f"{name} of a stream is {getattr(self, name)}: give {right}")

    def _check_labels(self, column: str) -> None:
        classes = set(self.classes)
        if not classes or len(classes) < len(self.classes):
            wrong = f"twice in {', '.join(self.classes)}" if classes else "missing"
            raise RequestError(f"the classes of label column '{column}' are {wrong}: name each once, in class order")
        for sample, text in zip(self.index.samples, self.index.column(column), strict=True):
            if not text.strip():
                raise RequestError(
                    f"clip '{sample.key}' has no value in label column '{column}': select labelled clips"
                )
            for value in label_values(text) if self.multilabel else [text]:
                if value not in classes:
                    raise choice_error(f"class in label column '{column}' of clip '{sample.key}'", value, classes)

    @property
    def fingerprint(self) -> str:
        """A digest of the shards."""
        return self.index.fingerprint

    def train(self, start: int | None = None) -> Iterator[Batch]:
        """Yields shuffled batches with random windows without end, equally many on every rank.

        `start`: global step of the first batch. Default: the loaded state, or step 0.
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
        """Returns the position after the last batch that `train` yielded. Prefetched batches do not count."""
        return {"step": self._step, "order": self._order()}

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Resumes `train` at the saved position, without decoding what came before.

        Raises `RequestError` if clips, seed, batch size or number of ranks differ from those of the saved stream.
        """
        if state["order"] != self._order():
            raise RequestError(
                "the saved position belongs to another stream: "
                "resume with the same clips, seed, batch size and number of ranks"
            )
        self._step = int(state["step"])

    def _order(self) -> str:
        """A digest of everything that determines the order of batches."""
        what = [self.seed, self.world, self.batch_size, [sample.key for sample in self.index.samples]]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def evaluate(self, starts: Starts | None = None, skip_damaged: bool = False) -> Iterator[Batch]:
        """Yields every clip once over all ranks, in index order, with evenly spread views.

        `starts`: start times in seconds of each clip's views, by key, equally many for all clips. They replace the
        evenly spread views. All ranks yield the same number of batches; padding rows have `valid` False. With
        `skip_damaged` an undecodable clip becomes a padding row.
        """
        count = len(self.index.samples)
        per_rank = -(-count // self.world)
        numbers = [self.rank + i * self.world for i in range(per_rank)]
        rows = [
            _Row(number % count, None, number < count, self._given(number % count, starts), skip_damaged)
            for number in numbers
        ]
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return self._load((0, batch) for batch in batches)

    def _given(self, number: int, starts: Starts | None) -> tuple[float, ...] | None:
        return None if starts is None else tuple(map(float, starts[self.index.samples[number].key]))

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Returns the clip at each place of an epoch, over all ranks. If there are fewer clips than places, they
        repeat."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.index.samples))
        return np.resize(order, self.steps_per_epoch * self.batch_size * self.world)

    def _training_rows(self, start: int) -> Iterator[tuple[int, list[_Row]]]:
        step, begun, order = start, -1, np.zeros(0, np.int64)
        while True:
            epoch, batch = divmod(step, self.steps_per_epoch)
            if epoch != begun:
                begun, order = epoch, self._epoch_order(epoch)
            first = (batch * self.world + self.rank) * self.batch_size
            rows = [
                _Row(int(order[place]), (self.seed, epoch, place)) for place in range(first, first + self.batch_size)
            ]
            # The seed of on-device draws differs between ranks and steps, and is the same after a resume.
            yield int(np.random.SeedSequence([self.seed, step, self.rank]).generate_state(1)[0]), rows
            step += 1

    def _load(self, batches: Any) -> Iterator[Batch]:
        classes = {name: number for number, name in enumerate(self.classes)}
        dataset = _ClipFiles(self.index, self.request, self.label, classes, self.multilabel)
        # If this process is killed, only the closed pipe reaches the workers.
        theirs, ours = multiprocessing.Pipe(duplex=False)
        with theirs, ours, dataset.files:
            # No other object holds it: its workers end before the pipe is closed.
            yield from self._checked(_read_batches(dataset, batches, self.workers, theirs))

    def _checked(self, loader: Iterable[_Read]) -> Iterator[Batch]:
        """Yields the batches while the share of undecodable clips is within `max_damaged`."""
        for read in loader:
            if read.fault:
                raise RequestError(read.fault)
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


def _read_batches(dataset: "_ClipFiles", batches: Any, workers: int, parent: Any) -> Iterator[_Read]:
    """Starts the `workers` that decode, which end when the other end of the pipe `parent` is closed."""
    if workers:
        start_server()
    with warnings.catch_warnings():
        # More workers than cores: the number was chosen, and workers that wait for a remote read need no core.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=batches,
            num_workers=workers,
            # Forking a process that already runs decoder or OpenMP threads can deadlock the child.
            multiprocessing_context="forkserver" if workers else None,
            prefetch_factor=3 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=partial(_begin_worker, parent) if workers else None,
        )
        return iter(loader)


def _begin_worker(parent: Any, worker: int) -> None:
    # One thread per process, as torch's workers have: others would compete for the same cores.
    cv2.setNumThreads(1)
    leave_stops()
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
            # Returned, not raised: the loader would bury the message in a worker's traceback.
            try:
                clip = self._read_row(row, damaged)
            except RequestError as error:
                return _Read(None, damaged, str(error))
            if clip is None:
                return _Read(None, damaged)
            clips.append(clip)
        return _Read(stack(clips, seed), damaged)

    def _read_row(self, row: _Row, damaged: dict[str, str]) -> Clip | None:
        """Returns the row's clip. If it is damaged, returns the next decodable one: in training, and as padding."""
        samples = self.index.samples
        for step in range(len(samples) if row.draw is not None or row.skip else 1):
            sample = samples[(row.sample + step) % len(samples)]
            where = f"clip '{sample.key}' in shard '{sample.shard}'"
            try:
                return self._read_clip(sample, row)
            except UNREADABLE as error:
                damaged[sample.key] = f"{where} cannot be decoded: {reason_of(error)}"
                row = replace(row, valid=row.valid and row.draw is not None)
            except Exception as error:
                error.add_note(where)
                raise
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
            # The last frame has no motion of its own, which would mark the end of its clip.
            lost = 1 / settings.fps if any(modality(name).flow_of for name in request.modalities) else 0.0
            duration = max(sample.duration - lost, min(sample.duration, covered))
            starts = random_starts(duration, covered, request.segments, generator)
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
