"""Make worker processes end with the process they work for."""

import os
import threading
from multiprocessing.connection import Connection


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
