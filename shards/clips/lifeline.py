"""Make worker processes end with the process they work for, and only with it."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection

# Queue systems and terminals send these to every process of a job. Workers ignore these signals; their parent stops
# them.
_STOPS = (signal.SIGINT, signal.SIGTERM)


def start_server() -> None:
    """Starts the forkserver if it does not run, so that it and its children outlive a signal to the whole job.

    Blocked, not ignored: torch sets a handler of SIGTERM in its workers, and a blocked signal never reaches it. A
    child inherits which signals are blocked.
    """
    resource_tracker.ensure_running()  # first, because it unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_stops() -> None:
    """Makes this worker deaf to SIGINT and SIGTERM, except from the process that it works for.

    Python ends a process that still has workers by SIGTERM to each, and then waits for them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    parent = multiprocessing.parent_process()
    if parent is not None and hasattr(signal, "sigwaitinfo"):  # not on macOS: there the closed pipe ends the worker
        threading.Thread(target=_obey, args=(parent.pid,), daemon=True).start()


def _obey(parent: int | None) -> None:
    while signal.sigwaitinfo(_STOPS).si_pid != parent:
        pass
    os._exit(1)


def end_with(parent: Connection) -> None:
    """Ends this process as soon as the other end of the pipe `parent` is closed.

    Otherwise a worker waits forever for its next task if the process that sends tasks is killed: its parent for the
    system is the forkserver, which keeps running.
    """
    threading.Thread(target=_wait, args=(parent,), daemon=True).start()


def _wait(parent: Connection) -> None:
    try:
        parent.recv()
    except (EOFError, OSError):
        os._exit(1)
