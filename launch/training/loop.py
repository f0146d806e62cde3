"""The training loop: any objective, any endless stream, read from top to bottom."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...shards.errors import DataError
from ..schema import TrainConfig
from .device import agree
from .heartbeat import AGREEING, BACKWARD, EVALUATING, FORWARD, UPDATING, WAITING
from .optimizer import set_learning_rate
from .set_up import Stream, TrackerSettings, open_training


@dataclass(frozen=True)
class Evaluation:
    """`measure(step)` returns figures to log, every `every` steps and after the last step.

    It runs in every process. If `measure.stop` is true in all of them, the training stops.
    """

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

    `objective(batch)` returns named scalars. Those ending in `/loss` are summed with the factors `objective.weights`
    (1 if a name is missing there); the others are only logged. `parameter_groups`: see `build_optimizer`. `settings`:
    the resolved config, kept in RUN/config.yaml. `resume` continues from the newest whole checkpoint of `run`, on a
    CPU bit for bit.

    A step whose loss or gradient is not finite is skipped, and its clips are listed in RUN/nonfinite.jsonl. SIGTERM
    and SIGINT end the run with a checkpoint and `KeyboardInterrupt`; SIGUSR1 saves a checkpoint. An error leaves a
    checkpoint of the last whole step. If one of several processes fails or gets no further batch, all save a
    checkpoint and end. With `config.average` the objective gets the averaged weights at the end. Raises
    `RequestError` for an occupied run folder, and for other settings or shards on resume; `DataError` if all
    checkpoints to resume from are damaged, after `config.nonfinite_limit` non-finite steps in a row, if a process
    that decodes clips dies, and for any error of one of several processes.
    """
    boards = TrackerSettings(tracker_mode, tensorboard)
    enough = evaluation.enough if evaluation else lambda: False
    with open_training(
        objective, stream, config, run, seed, parameter_groups, resume, boards, settings, enough
    ) as training:
        state, book, stop, pulse = training.state, training.book, training.stop, training.pulse
        accelerator = state.accelerator
        # Of the trained module: a sharded copy has its own weights, which follow its schedules.
        weights: Mapping[str, float] = getattr(state.trained, "weights", {})
        while not stop.now(state.step):
            rate = set_learning_rate(state.optimizer, config, state.step)
            state.begin_step()
            losses, keys, seen, lost = [], [], [], False
            for number in range(config.accumulate):
                pulse.at(state.step, WAITING)
                with book.meter.waiting():
                    batch, reason = _next(training.batches, accelerator.process_index)
                # All processes decide together: one without a batch would leave the others waiting in the exchange.
                pulse.at(state.step, AGREEING)
                lost, signalled = agree(accelerator, reason is not None, stop.signals.stop)
                if lost:
                    stop.lose_batch(reason, signalled)
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
            if lost:  # within a step: the resumed run repeats the step from its first batch
                state.undo_step()
                break

            norm = state.clip(config.clip_norm or math.inf)
            total = torch.stack(losses).sum()
            # All processes decide together, or some would wait for an exchange that the others skip.
            skip, stop.interrupted, due = agree(
                accelerator, state.overflowed(total, norm), stop.signals.stop, training.save_due()
            )
            pulse.at(state.step, UPDATING)
            state.update(skip, total, keys)
            book.add(len(keys) * accelerator.num_processes, [] if skip else [*seen, {"gradient_norm": norm}])
            training.advance(1)

            ended = state.step == config.steps
            if state.step % config.log_every == 0 or ended:
                book.log(state.step, rate, training.advance)
                if not evaluation:
                    book.check_best()
            if evaluation and (state.step % evaluation.every == 0 or ended):
                pulse.at(state.step, EVALUATING)
                # The generators are restored: a training draws the same numbers with and without evaluation.
                with torch.random.fork_rng(devices=[]), state.evaluated():
                    book.evaluated(state.step, evaluation.measure(state.step))
                book.check_best()
                due |= config.best in book.figures
            if due or state.step % config.checkpoint_every == 0:
                training.save()
    return book.last


def _next(batches: Iterator[Any], rank: int) -> tuple[Any, Exception | None]:
    """The next batch, or the error that there is none."""
    try:
        # A DataLoader draws its base seed from the global generator when it starts: a resumed run would draw once
        # more than an uninterrupted one.
        with torch.random.fork_rng(devices=[]):
            return next(batches), None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            return None, error
        lost = DataError(
            f"a process that decodes for rank {rank} died ({str(error).splitlines()[0]}): perhaps memory ran out; "
            "lower data.workers or data.batch_size, and resume with --resume"
        )
        lost.__cause__ = error
        return None, lost
    except Exception as error:
        return None, error
