"""Worker processes that end with the process they work for."""

import os
import threading
from multiprocessing.connection import Connection


def end_with(parent: Connection) -> None:
    """Ends this process as soon as nobody holds the other end of the pipe `parent` any more.

    A worker waits for its next task for ever if who gives it was killed: a forkserver, which is its parent to the
    system, goes on.
    """
    threading.Thread(target=_wait, args=(parent,), daemon=True).start()


def _wait(parent: Connection) -> None:
    try:
        parent.recv()
    except (EOFError, OSError):
        os._exit(1)
