"""An iterator that runs ahead of its consumer in a thread."""

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Takes up to `depth` items in advance from an iterator, in a thread and in order.

    Decoding and NumPy release the interpreter lock, so a model can compute meanwhile. Use it as a context manager: at
    the end the thread stops, and `items` is closed.
    """

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self.items, self.depth = items, depth
        self.ready: deque[Item] = deque()
        self.fault: BaseException | None = None
        self.ended, self.stopped = False, False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        # A thread that waits for a camera's next picture is left behind.
        self.thread.join(1.0)

    def take(self, most: int, whole: bool = False) -> list[Item]:
        """Returns 1 to `most` items: those that are ready, or with `whole` as many as possible. Empty at the end.

        An error of the iterator, or of closing it, is raised after all items that came before it.
        """
        least = min(most, self.depth) if whole else 1
        with self.changed:
            self.changed.wait_for(lambda: self.ended or len(self.ready) >= least)
            taken = [self.ready.popleft() for _ in range(min(most, len(self.ready)))]
            self.changed.notify_all()
            if not taken and self.fault is not None:
                raise self.fault
        return taken

    def _run(self) -> None:
        fault = None
        try:
            self._read()
        except BaseException as error:
            fault = error
        try:
            close = getattr(self.items, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            fault = fault or error
        with self.changed:
            self.fault, self.ended = fault, True
            self.changed.notify_all()

    def _read(self) -> None:
        for item in self.items:
            with self.changed:
                self.ready.append(item)
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.stopped or len(self.ready) < self.depth)
                if self.stopped:
                    break
