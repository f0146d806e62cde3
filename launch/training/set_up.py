"""Everything that a training opens before its first step and closes after its last."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import set_seed
from torch import nn

from ...shards.errors import DataError, RequestError
from ..runs.boards import Boards, need_tensorboard
from ..runs.environment import record_environment
from ..runs.folder import started_parts, started_run
from ..runs.logbook import Logbook, warn
from ..runs.metric_log import Tracker, read_metrics
from ..runs.progress import Advance, track
from ..schema import TrainConfig
from .checkpoint import resumed_checkpoint
from .compiling import compiled
from .device import determinism, keep_freed_memory, leave_cores_to, make_accelerator, on_first, ranks
from .heartbeat import SAVING, Heartbeat
from .state import RunState
from .stop import Stop, caught_signals


class Batch(Protocol):
    """A batch moves to a device and names its clips."""

    key: list[str]
    seed: int

    def to(self, device: torch.device | str, /) -> "Batch": ...


class Stream(Protocol):
    """Endless batches from global batch number `start`, a pure function of (seed, rank, world, number).

    `workers`: processes that decode them; 0: the training process decodes them.
    """

    workers: int

    def train(self, start: int, /) -> Iterator[Any]: ...


@dataclass(frozen=True)
class TrackerSettings:
    """Where figures go in addition to metrics.jsonl: wandb with this `mode`, and TensorBoard if `tensorboard`."""

    mode: str = "offline"
    tensorboard: bool = False


@dataclass
class Training:
    """An open training: what its loop needs for a step.

    `batches`: this process's batches, from the first one not yet trained on. `advance`: moves the progress bar.
    `settings`: the resolved config and the shards' fingerprint. `saved`: the step of the newest checkpoint, -1
    without one; `saved_at`: its time on the monotonic clock.
    """

    run: Path
    state: RunState
    book: Logbook
    pulse: Heartbeat
    stop: Stop
    batches: Iterator[Any]
    advance: Advance
    settings: Mapping[str, Any]
    saved: int = -1
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._began = self.state.step, self.saved

    @property
    def advanced(self) -> bool:
        """Whether this start has done a step or saved a checkpoint."""
        return (self.state.step, self.saved) != self._began

    def save_due(self) -> bool:
        """Whether a checkpoint is due by SIGUSR1 or by `train.checkpoint_minutes`."""
        overdue = time.monotonic() - self.saved_at >= 60 * self.state.config.checkpoint_minutes
        return self.stop.signals.save or overdue

    def save(self) -> None:
        """Writes a checkpoint of this step; all processes call it."""
        self.pulse.at(self.state.step, SAVING)
        tracker = self.book.tracker
        self.state.save(self.run, self.settings, None if tracker is None else tracker.identity, self.book.score())
        self.saved, self.saved_at = self.state.step, time.monotonic()
        self.stop.signals.save = False

    def rescue(self) -> str:
        """Writes a checkpoint of the last whole state, in the first process, after an error; what to tell about it.

        A training without a finished step has nothing to keep.
        """
        tracker = self.book.tracker
        identity = None if tracker is None else tracker.identity
        if self.state.step in (0, self.saved):
            self.state.undo_step()
            return f"; it has the checkpoint of step {self.saved}" if self.state.step else ""
        try:
            others = self.pulse.answers()
            if not self.state.rescue(self.run, self.settings, identity, self.book.score(), others):
                return "; the last checkpoint stays"
        except DataError as error:
            return f"; {error}"
        self.saved = self.state.step
        return f"; a checkpoint of step {self.saved} is saved: resume with --resume"


@contextmanager
def ended_together(pulse: Heartbeat, opened: Sequence[Training]) -> Iterator[None]:
    """Ends all processes if the block raises an error in one, with a checkpoint of the last whole state.

    The process that failed raises a `DataError` that names its rank and its error (a `RequestError` stays one), the
    others one that names no reason. A single process raises its error.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if pulse.ended:  # in an inner block, or after the last step
            raise
        failure = pulse.failure(error)
        impatient = isinstance(error, KeyboardInterrupt)
        saved = opened[0].rescue() if opened and pulse.rank == 0 and not impatient else ""
        pulse.let_others_read()
        pulse.finish()
        if failure is None or impatient:
            raise
        if failure.teller != pulse.rank:
            raise DataError(f"another process failed, and prints the reason{saved}") from error
        kind = RequestError if isinstance(error, RequestError) and failure.rank == pulse.rank else DataError
        raise kind(f"{failure}{saved}") from error


@contextmanager
def open_training(
    objective: nn.Module,
    stream: Stream,
    config: TrainConfig,
    run: Path,
    seed: int,
    parameter_groups: Sequence[dict[str, Any]] | None,
    resume: bool,
    boards: TrackerSettings,
    settings: Mapping[str, Any] | None,
    enough: Callable[[], bool],
) -> Iterator[Training]:
    """Yields the training with its state restored from the newest checkpoint (`resume`) or new.

    On leaving it writes a last checkpoint, then raises what `Stop.raise_failure` raises. After an error it writes a
    checkpoint of the last whole state; see `ended_together`. A run that fails before its first step leaves no folder,
    a resumed one its folder as it was. Arguments and errors: see `loop.train`. `enough`: see `Stop`.
    """
    if boards.tensorboard:
        need_tensorboard()
    leave_cores_to(stream.workers, config.threads)
    keep_freed_memory()
    accelerator = make_accelerator(config.precision, config.hang_minutes)
    main = accelerator.is_main_process
    # The shards' fingerprint belongs to the run: other shards under the same name make another run.
    settings = {**(settings or {}), "fingerprint": getattr(stream, "fingerprint", None)}
    opened: list[Training] = []
    pulse = Heartbeat(accelerator.process_index, accelerator.num_processes, 60 * config.hang_minutes)
    with ExitStack() as stack:
        stack.enter_context(pulse)

        def start() -> tuple[Path | None, list[Path]]:
            stack.enter_context(started_run(run, settings, resume, lambda: bool(opened) and opened[0].advanced))
            # Only the first process looks: on a shared disk the others may not see the same files yet.
            return resumed_checkpoint(run) if resume else (None, [])

        folder, damaged = on_first(accelerator, start)
        stack.enter_context(ended_together(pulse, opened))
        if main and resume:
            _tell_start(run, folder, damaged)
        set_seed(seed, device_specific=True)
        state = RunState(accelerator, objective, config, run, parameter_groups, folder)
        pulse.keep = state.keep_random
        stack.callback(state.close)
        if main and state.step > config.steps:
            warn(f"'{run}' already has {state.step} steps, more than train.steps={config.steps}: no further training")
        trackers: list[Tracker] = []

        def track_run() -> None:
            record_environment(run, state.step, accelerator.num_processes, settings)
            shown = Boards(run, boards.mode, settings, warn, state.tracked, state.step, boards.tensorboard)
            trackers.append(Tracker(run, shown, state.step))

        on_first(accelerator, track_run)
        tracker = trackers[0] if trackers else None
        if tracker is not None:
            stack.push(lambda kind, *_: tracker.close(exit_code=0 if kind is None else 1))
        logged = read_metrics(run) if folder is not None else []
        last = next((line for line in reversed(logged) if "loss" in line and line["step"] <= state.step), {})
        book = Logbook(tracker, getattr(objective, "warnings", lambda _: []), config.best, last)
        saved, saved_at = state.step if folder is not None else -1, time.monotonic()
        state.restore_random()  # last, so that nothing above draws from the generators after it
        state.model.train()
        # The stream is already split by rank: `Accelerator.prepare` would split it again.
        batches = stream.train(state.batches)
        with (
            caught_signals() as signals,
            ended_together(pulse, opened),
            determinism(config.deterministic),
            compiled(state.trained, config.compile),
            track(config.steps, run.name, start=state.step, show=main) as advance,
        ):
            stop = Stop(signals, config.steps, enough, state.nonfinite.error)
            training = Training(run, state, book, pulse, stop, batches, advance, settings, saved, saved_at)
            opened.append(training)
            pulse.rescue = training.rescue
            yield training
            # A failure before the first step leaves nothing to resume.
            if training.saved != state.step and (state.step or stop.failure is None):
                training.save()
        pulse.finish()
        stop.raise_failure()
        book.finish(state.step, getattr(objective, "verdict", lambda _: []))
    state.finish()


@contextmanager
def open_parts(run: Path, settings: Mapping[str, Any], resume: bool, config: TrainConfig) -> Iterator[None]:
    """Opens the folder of a run with one training per split, in all processes; see `started_parts`.

    Raises what `open_run` raises, in every process.
    """
    with ExitStack() as stack:

        def start() -> None:
            stack.enter_context(started_parts(run, settings, resume))

        if ranks()[1] > 1:
            on_first(make_accelerator(config.precision, config.hang_minutes), start)
        else:
            start()
        yield


def _tell_start(run: Path, folder: Path | None, damaged: Sequence[Path]) -> None:
    """Prints what a resumed run does not resume from: damaged checkpoints, or none at all."""
    if damaged and folder is not None:
        names = ", ".join(path.name for path in damaged)
        warn(f"checkpoint {names} of '{run}' is damaged: the training resumes from {folder.name}")
    elif folder is None:
        warn(f"note: '{run}' has no checkpoint: the training starts from step 0")
