"""Signals as wishes: SIGINT and SIGTERM to end the step, save and stop; SIGUSR1 to save and go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from types import FrameType

_STOP = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Wishes:
    """What signals have asked for; whoever grants `save` takes it back."""

    stop: bool = False
    save: bool = False


@contextmanager
def caught_signals() -> Iterator[Wishes]:
    """Yields the wishes of the signals that come while it is open.

    The second SIGINT or SIGTERM acts as it did before, so that an impatient person gets out at once.
    """
    wishes = Wishes()
    if threading.current_thread() is not threading.main_thread():
        yield wishes  # only the main thread may handle signals
        return
    _spare_workers()
    before = {number: signal.getsignal(number) for number in (*_STOP, signal.SIGUSR1)}

    def stop(number: int, frame: FrameType | None) -> None:
        wishes.stop = True
        signal.signal(number, before[signal.Signals(number)])

    def save(number: int, frame: FrameType | None) -> None:
        wishes.save = True

    for number in _STOP:
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, save)
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _spare_workers() -> None:
    """Lets the loader's processes live through a SIGUSR1.

    Queue systems send it to every process of a job, and one without a handler dies of it. What is ignored stays
    ignored in the processes that are started meanwhile, and in all that those start.
    """
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    signal.signal(signal.SIGUSR1, before)
