"""Why a training stops, and the signals that can stop it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from types import FrameType

from ...shards.errors import DataError

_STOP = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Signals:
    """Signals received by this process: `stop` by SIGINT or SIGTERM, `save` by SIGUSR1 since the last checkpoint."""

    stop: bool = False
    save: bool = False


class Stop:
    """The four reasons to stop: all steps are done, a signal, the evaluation says enough, too many non-finite steps.

    `enough`: true when the evaluation wants no further step. `error`: the error of too many non-finite steps in a
    row, else none. `interrupted`: some process received a signal; set after every step, alike in all processes.
    """

    def __init__(
        self, signals: Signals, steps: int, enough: Callable[[], bool], error: Callable[[], DataError | None]
    ) -> None:
        self.signals, self.steps = signals, steps
        self.interrupted = False
        self._enough, self._error = enough, error

    def now(self, step: int) -> bool:
        """Whether the training stops after `step` steps."""
        return self.interrupted or step >= self.steps or self._enough() or self._error() is not None

    def raise_failure(self) -> None:
        """Raises `DataError` after too many non-finite steps, `KeyboardInterrupt` after a signal."""
        error = self._error()
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
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    signal.signal(signal.SIGUSR1, before)
