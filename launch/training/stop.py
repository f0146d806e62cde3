"""Why a training stops, and the signals that can stop it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ...shards.clips.lifeline import start_server
from ...shards.errors import DataError

_STOP = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Signals:
    """Signals received by this process."""

    stop: bool = False
    """SIGINT or SIGTERM."""
    save: bool = False
    """SIGUSR1 since the last checkpoint."""


class Stop:
    """The five reasons to stop: all steps are done, a signal, early stopping, too many non-finite steps, a process
    without its next batch.

    enough: returns whether early stopping applies.
    error: returns the error of too many non-finite steps in a row, or None.
    interrupted: whether any process received a signal. Equal in all processes, set after every step.
    failure: the error that left a process without a next batch. Every process has it set; only that process knows
        the cause.
    """

    def __init__(
        self, signals: Signals, steps: int, enough: Callable[[], bool], error: Callable[[], DataError | None]
    ) -> None:
        self.signals, self.steps = signals, steps
        self.interrupted = False
        self.failure: Exception | None = None
        self._enough, self._error = enough, error

    def now(self, step: int) -> bool:
        """Whether the training stops after `step` steps."""
        failed = self.failure is not None or self._error() is not None
        return self.interrupted or failed or step >= self.steps or self._enough()

    def lose_batch(self, reason: Exception | None, signalled: bool) -> None:
        """Ends the training because a process has no next batch; all processes call it.

        `reason`: the error, None in the other processes. `signalled`: a signal explains it, in some process.
        """
        self.interrupted = signalled
        if not signalled:
            self.failure = reason or DataError("another process has no next batch, and prints the reason")

    def raise_failure(self) -> None:
        """Raises `DataError` after too many non-finite steps, the error of a lost batch, and `KeyboardInterrupt`
        after a signal.
        """
        error = self._error() or self.failure
        if error is not None:
            raise error
        if self.interrupted:
            raise KeyboardInterrupt


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Yields the signals that are received while it is open.

    The second SIGINT or SIGTERM has its previous effect, so that an impatient user can quit at once.
    """
    received = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    _protect_workers()
    before = {number: signal.getsignal(number) for number in (*_STOP, signal.SIGUSR1)}

    def stop(number: int, frame: FrameType | None) -> None:
        received.stop = True
        signal.signal(number, before[signal.Signals(number)])

    def save(number: int, frame: FrameType | None) -> None:
        received.save = True

    for number in _STOP:
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, save)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _protect_workers() -> None:
    """Makes the loader's processes ignore SIGUSR1.

    Queue systems send SIGUSR1 to every process of a job, and it ends a process without a handler. Processes started
    while a signal is ignored ignore it too, and so do the processes that these start.
    """
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    start_server()
    signal.signal(signal.SIGUSR1, before)
