"""The training loop: any objective, any endless stream, read from top to bottom."""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn

from ..runs.boards import Boards, need_tensorboard
from ..runs.environment import record_environment
from ..runs.folder import open_run
from ..runs.logbook import Logbook, warn
from ..runs.metric_log import Tracker, read_metrics
from ..runs.progress import track
from ..schema import TrainConfig
from .checkpoint import latest_checkpoint
from .compiling import compiled
from .device import agree, determinism, keep_freed_memory, leave_cores_to, make_accelerator
from .heartbeat import BACKWARD, EVALUATING, FORWARD, SAVING, WAITING, Heartbeat
from .nonfinite import NonFiniteGuard
from .optimizer import set_learning_rate
from .signals import Wishes, caught_signals
from .state import RunState


class Batch(Protocol):
    """What the loop asks of a batch: to move, and to name its clips."""

    key: list[str]
    seed: int

    def to(self, device: torch.device | str, /) -> "Batch": ...


class Stream(Protocol):
    """Endless batches from global batch number `start`, a pure function of (seed, rank, world, number).

    `workers`: processes that decode them, 0 for this one.
    """

    workers: int

    def train(self, start: int, /) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """`measure(step)`, every `every` steps and after the last, returns figures to log; where it has a true `stop`,
    training ends there. It runs in every process and must decide alike in all."""

    measure: Callable[[int], dict[str, float]]
    every: int

    def enough(self) -> bool:
        return bool(getattr(self.measure, "stop", False))


def train(
    objective: nn.Module,
    stream: Stream,
    config: TrainConfig,
    run: Path,
    *,
    seed: int = 0,
    parameter_groups: Sequence[dict[str, Any]] | None = None,
    resume: bool = False,
    tracker_mode: str = "offline",
    tensorboard: bool = False,
    settings: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
) -> dict[str, float]:
    """Trains `objective` in place and returns the last logged means.

    `objective(batch)` returns named scalars: those ending in `/loss` are summed with `objective.weights` (1 where it
    names none), the others are only logged. `parameter_groups`: see `build_optimizer`. `settings`: the resolved
    config, kept in RUN/config.yaml. `resume` goes on from the newest whole checkpoint of `run`, on a CPU bit for bit.

    A step whose loss or gradient is not finite is left out, and its clips are listed in RUN/nonfinite.jsonl. SIGTERM
    and SIGINT end the run with a checkpoint and `KeyboardInterrupt`, SIGUSR1 saves one. With `config.average` the
    objective is left with the averaged weights. Raises `RequestError` for an occupied run folder, and for other
    settings or shards on resume; `DataError` after `config.nonfinite_limit` non-finite steps in a row.
    """
    if tensorboard:
        need_tensorboard()
    leave_cores_to(stream.workers, config.threads)
    keep_freed_memory()
    accelerator = make_accelerator(config.precision, config.hang_minutes)
    main = accelerator.is_main_process
    # What the run is made of, beside what was asked for: other shards under the same name are another run.
    settings = {**(settings or {}), "fingerprint": getattr(stream, "fingerprint", None)}
    if main:
        open_run(run, settings, resume)
    accelerator.wait_for_everyone()
    set_seed(seed, device_specific=True)
    # One process looks: on a shared disk the others may not see yet what it sees.
    folder: Path | None = broadcast_object_list([latest_checkpoint(run) if resume and main else None])[0]
    state = RunState(accelerator, objective, config, parameter_groups, folder)
    tracker = None
    if main:
        record_environment(run, state.step, accelerator.num_processes, settings)
        boards = Boards(run, tracker_mode, settings, warn, state.tracked, state.step, tensorboard)
        tracker = Tracker(run, boards, state.step)
    # The copy that is trained, where there is one, has weights of its own that follow its schedules.
    weights: Mapping[str, float] = getattr(state.trained, "weights", {})
    logged = read_metrics(run) if folder is not None else []
    last = next((line for line in reversed(logged) if "loss" in line), {})
    book = Logbook(tracker, getattr(objective, "warnings", lambda _: []), config.best, last)
    guard = NonFiniteGuard(run, state.trained, config.nonfinite_limit, accelerator.process_index)
    pulse = Heartbeat(accelerator.process_index, accelerator.num_processes, 60 * config.hang_minutes)
    saved, saved_at = state.step if folder is not None else -1, time.monotonic()
    stopping, finished = False, False
    state.restore_random()  # last, so that nothing above has drawn from the generators since
    state.model.train()
    # The stream is split by rank already: it never goes through `prepare`, which would split it again.
    batches = stream.train(state.batches)

    def save() -> None:
        nonlocal saved, saved_at
        pulse.at(state.step, SAVING)
        state.save(run, settings, None if tracker is None else tracker.identity, book.score())
        saved, saved_at = state.step, time.monotonic()

    try:
        with (
            determinism(config.deterministic),
            compiled(state.trained, config.compile),
            pulse,
            caught_signals() as wishes,
            track(config.steps, run.name, start=state.step, show=main) as advance,
        ):
            while state.step < config.steps and not stopping and not (evaluation and evaluation.enough()):
                rate = set_learning_rate(state.optimizer, config, state.step)
                guard.remember()
                losses, keys, seen = [], [], []
                for number in range(config.accumulate):
                    pulse.at(state.step, WAITING)
                    with book.meter.waiting():
                        batch = _next(batches, wishes)
                    if batch is None:
                        stopping = True
                        break
                    pulse.at(state.step, FORWARD)
                    with state.exchanging(last=number == config.accumulate - 1):
                        outputs = state.model(batch.to(accelerator.device))
                        parts = [weights.get(k, 1.0) * v for k, v in outputs.items() if k.endswith("/loss")]
                        loss = torch.stack(parts).sum()
                        pulse.at(state.step, BACKWARD)
                        state.backward(loss)
                    losses.append(loss.detach())
                    keys += batch.key
                    seen.append({"loss": loss.detach(), **{k: v.detach() for k, v in outputs.items()}})
                if stopping:
                    break  # in the middle of a step: the resumed run does it whole

                norm = state.clip(config.clip_norm or math.inf)
                total = torch.stack(losses).sum()
                # fp16 overflows by design now and then: its scaler leaves those steps out itself.
                bad = ~torch.isfinite(total if state.scaler is not None else total + norm)
                overdue = time.monotonic() - saved_at >= 60 * config.checkpoint_minutes
                skip, stopping, due = agree(accelerator, bad, wishes.stop, wishes.save or overdue)
                if skip:
                    guard.record(state.step, float(total) / config.accumulate, keys)
                else:
                    guard.in_a_row = 0
                    for outputs in seen:
                        book.means.add(outputs)
                    book.means.add({"gradient_norm": norm})
                if not skip or state.scaler is not None:
                    state.update()
                state.advance(config.accumulate)
                book.meter.add(len(keys) * accelerator.num_processes)
                advance(1)

                book.figures = {}
                ended = state.step == config.steps
                if state.step % config.log_every == 0 or ended:
                    book.log(state.step, rate, advance)
                    if not evaluation:
                        book.check_best()
                if evaluation and (state.step % evaluation.every == 0 or ended):
                    pulse.at(state.step, EVALUATING)
                    with torch.random.fork_rng(devices=[]), state.evaluated():
                        book.evaluated(state.step, evaluation.measure(state.step))
                    book.check_best()
                    due |= config.best in book.figures
                error = guard.error()
                if error is not None or due or state.step % config.checkpoint_every == 0:
                    save()
                    wishes.save = False
                if error is not None:
                    raise error
            if saved != state.step:
                save()
        if stopping:
            raise KeyboardInterrupt
        book.finish(state.step, getattr(objective, "verdict", lambda _: []))
        finished = True
    finally:
        if tracker is not None:
            tracker.close(exit_code=0 if finished else 1)
        state.close()
        if main and saved < 0 and state.step == 0:
            shutil.rmtree(run)  # failed before its first step: nothing half-written stays
    state.finish()
    return book.last


def _next(batches: Iterator[Any], wishes: Wishes) -> Any:
    """The next batch; none where the signal to stop has ended the loader's workers too."""
    try:
        # A DataLoader takes its base seed from the global generator when it starts, so a resumed run would draw once
        # more than the uninterrupted one: the stream's draws are its own affair.
        with torch.random.fork_rng(devices=[]):
            return next(batches)
    except RuntimeError:
        if wishes.stop:
            return None
        raise
