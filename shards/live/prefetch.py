"""An iterator that runs ahead of whoever takes from it, in a thread of its own."""

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Takes from `items` in a thread, at most `depth` of them before they are asked for, in their order.

    Decoding and NumPy leave the interpreter free, so that a model can compute beside them. A context manager: at its
    end the thread is stopped, and `items` closed.
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
        # One that waits for a camera's next picture is not waited for.
        self.thread.join(1.0)

    def take(self, most: int, whole: bool = False) -> list[Item]:
        """From one to `most` items: those that are ready, or with `whole` as many unless there are no more.

        Nothing at the end. What the iterator raised is raised when all that came before it has been taken.
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
        try:
            for item in self.items:
                with self.changed:
                    self.ready.append(item)
                    self.changed.notify_all()
                    self.changed.wait_for(lambda: self.stopped or len(self.ready) < self.depth)
                    if self.stopped:
                        break
        except BaseException as error:
            self.fault = error
        finally:
            close = getattr(self.items, "close", None)
            if close is not None:
                close()
            with self.changed:
                self.ended = True
                self.changed.notify_all()
