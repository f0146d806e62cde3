"""The training loop: any objective, any endless stream, read from top to bottom."""

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch import nn

from ..shards.errors import choice_error
from .averaging import WeightAverage
from .checkpoint import latest_checkpoint, load_checkpoint, random_state, save_checkpoint, set_random_state
from .compiling import compiled
from .device import agree, determinism, leave_cores_to, make_accelerator
from .environment import record_environment
from .heartbeat import BACKWARD, EVALUATING, FORWARD, SAVING, WAITING, Heartbeat
from .interruption import Wishes, caught_signals
from .means import Means
from .meter import Meter
from .nonfinite import NonFiniteGuard
from .optimizer import build_optimizer, resume_optimizer, set_learning_rate
from .progress import track
from .run_folder import open_run
from .schema import TrainConfig
from .tracking import Tracker, need_tensorboard, read_metrics


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
    accelerator = make_accelerator(config.precision, config.hang_minutes)
    device, main = accelerator.device, accelerator.is_main_process
    # What the run is made of, beside what was asked for: other shards under the same name are another run.
    settings = {**(settings or {}), "fingerprint": getattr(stream, "fingerprint", None)}
    if main:
        open_run(run, settings, resume)
    accelerator.wait_for_everyone()
    set_seed(seed, device_specific=True)
    weights: Mapping[str, float] = getattr(objective, "weights", {})
    plain = build_optimizer(objective.to(device), config, parameter_groups)
    average = WeightAverage(objective, config.average) if config.average else None

    step, state = 0, {}
    # One process looks: on a shared disk the others may not see yet what it sees.
    folder: Path | None = broadcast_object_list([latest_checkpoint(run) if resume and main else None])[0]
    if folder is not None:
        step, model_state, state = load_checkpoint(folder)
        objective.load_state_dict(model_state)
        resume_optimizer(plain, state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
    model, optimizer = accelerator.prepare(objective, plain)
    scaler = accelerator.scaler
    if state and scaler is not None:
        scaler.load_state_dict(state["scaler"])
    if main:
        record_environment(run, step, accelerator.num_processes, settings["fingerprint"])
    tracker = Tracker(run, tracker_mode, settings, _warn, state.get("wandb"), step, tensorboard) if main else None
    guard, means = NonFiniteGuard(run, objective, config.nonfinite_limit, accelerator.process_index), Means()
    # Last, so that nothing above has drawn from the generators since.
    if accelerator.process_index < len(state.get("random", ())):
        set_random_state(state["random"][accelerator.process_index])

    warned: set[str] = set()

    def warn_once(means: dict[str, float]) -> None:
        for line in getattr(objective, "warnings", lambda _: [])(means):
            # The same thing with another number is not news.
            if (subject := line.partition("(")[0]) not in warned:
                warned.add(subject)
                _warn(f"step {step}: {line}")

    figures: dict[str, float] = {}  # of an evaluation after this very step
    pulse = Heartbeat(accelerator.process_index, accelerator.num_processes, 60 * config.hang_minutes)

    def save() -> None:
        pulse.at(step, SAVING)
        every_random = gather_object([random_state()])
        if tracker is not None:
            kept = {"optimizer": plain.state_dict(), "random": every_random, "wandb": tracker.identity}
            kept["scaler"] = None if scaler is None else scaler.state_dict()
            kept["average"] = None if average is None else average.state_dict()
            save_checkpoint(
                run, step, objective.state_dict(), kept, config.keep, _score({**last, **figures}, config.best)
            )
        accelerator.wait_for_everyone()

    model.train()
    # The stream is split by rank already: it never goes through `prepare`, which would split it again.
    batches = stream.train(step * config.accumulate)
    logged = read_metrics(run) if folder is not None else []
    last: dict[str, float] = next((line for line in reversed(logged) if "loss" in line), {})
    saved, stopping, finished = step if folder is not None else -1, False, False
    meter, saved_at = Meter(), time.monotonic()
    try:
        with (
            determinism(config.deterministic),
            compiled(objective, config.compile),
            pulse,
            caught_signals() as wishes,
            track(config.steps, run.name, start=step, show=main) as advance,
        ):
            while step < config.steps and not stopping and not (evaluation and evaluation.enough()):
                rate = set_learning_rate(plain, config, step)
                guard.remember()
                total, keys, seen = torch.zeros((), device=device), [], []
                for number in range(config.accumulate):
                    pulse.at(step, WAITING)
                    with meter.waiting():
                        batch = _next(batches, wishes)
                    if batch is None:
                        stopping = True
                        break
                    pulse.at(step, FORWARD)
                    # Ranks exchange gradients once per step, with its last batch.
                    exchanged = number == config.accumulate - 1
                    with nullcontext() if exchanged else accelerator.no_sync(model):
                        outputs = model(batch.to(device))
                        losses = [weights.get(k, 1.0) * v for k, v in outputs.items() if k.endswith("/loss")]
                        loss = torch.stack(losses).sum()
                        pulse.at(step, BACKWARD)
                        accelerator.backward(loss / config.accumulate)
                    total += loss.detach() / config.accumulate
                    keys += batch.key
                    seen.append({"loss": loss, **outputs})
                if stopping:
                    break  # in the middle of a step: the resumed run does it whole

                norm: Any = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf)
                bad = ~torch.isfinite(total)
                if scaler is None:  # fp16 overflows by design now and then: its scaler leaves those steps out itself
                    bad |= ~torch.isfinite(norm)
                overdue = time.monotonic() - saved_at >= 60 * config.checkpoint_minutes
                skip, stopping, due = agree(accelerator, bad, wishes.stop, wishes.save or overdue)
                if skip:
                    guard.record(step, float(total), keys)
                else:
                    guard.in_a_row = 0
                    for outputs in seen:
                        means.add(outputs)
                    means.add({"gradient_norm": norm})
                if not skip or scaler is not None:
                    optimizer.step()
                    if average is not None:
                        average.update(step)
                optimizer.zero_grad()
                step += 1
                meter.add(len(keys) * accelerator.num_processes)
                advance(1)

                figures = {}
                if step % config.log_every == 0 or step == config.steps:
                    last = {**means.take(), "learning_rate": rate, **meter.take()}
                    if "loss" in last and not evaluation:
                        _check_best(config.best, last)
                    if tracker is not None:
                        tracker.log(step, last)
                        warn_once(last)
                    shown = {key.removesuffix("/loss"): value for key, value in last.items() if key.endswith("loss")}
                    shown |= {"clips/s": last["clips_per_second"], "wait": f"{last['data_wait']:.0%}"}
                    advance(0, **shown, memory=f"{last['memory_gb']:.2g} GB")
                if evaluation and (step % evaluation.every == 0 or step == config.steps):
                    pulse.at(step, EVALUATING)
                    with torch.random.fork_rng(devices=[]), average.in_place() if average else nullcontext():
                        figures = evaluation.measure(step)
                    model.train()
                    if "loss" in last:
                        _check_best(config.best, {**last, **figures})
                    due |= config.best in figures
                    if tracker is not None:
                        tracker.log(step, figures)
                error = guard.error()
                if error is not None or due or step % config.checkpoint_every == 0:
                    save()
                    saved, saved_at, wishes.save = step, time.monotonic(), False
                if error is not None:
                    raise error
            optimizer.zero_grad()
            if saved != step:
                save()
                saved = step
        if stopping:
            raise KeyboardInterrupt
        finished = True
    finally:
        if tracker is not None:
            tracker.close(exit_code=0 if finished else 1)
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        if main and saved < 0 and step == 0:
            shutil.rmtree(run)  # failed before its first step: nothing half-written stays
    if average is not None:
        average.put_in_place()
    return last


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


def _score(means: Mapping[str, float], best: str | None) -> float | None:
    """The metric `best`, turned so that higher is better; none where it was not logged or is not finite."""
    value = means.get(best) if best is not None else None
    if best is None or value is None or not math.isfinite(value):
        return None
    return -value if best.endswith("loss") else value


def _check_best(best: str | None, known: Mapping[str, float]) -> None:
    if best not in (None, *known):
        raise choice_error("metric for config key 'train.best'", str(best), known)


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
