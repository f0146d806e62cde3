"""Worker processes that read recordings and send pieces, never more than are needed."""

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import cv2

from ..clips.lifeline import leave_stops, start_server
from ..errors import RequestError
from ..index.unreadable import UNREADABLE, reason_of
from ..packing.rejected import KILLED

Item = TypeVar("Item")
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Ended:
    """The last result of an item. `reason`: why it could not be read to its end; empty if it was."""

    reason: str


def relay(
    read: Callable[[Item], Iterator[Piece]], items: Sequence[Item], workers: int, depth: int = 32
) -> Iterator[tuple[int, Piece | Ended]]:
    """Yields (position, piece) for every piece of every item, and (position, `Ended`) at the end of each item.

    - `read`: yields the pieces of an item.
    - `workers`: processes, one item each at a time. 0: read in this process.
    - `depth`: most pieces that wait here.

    The pieces of an item keep their order. If a process dies, by a decoder's crash or lack of memory, its item ends
    with that reason, and the process is replaced. The processes end with the caller, even if it is killed. Errors
    that are not in `unreadable.UNREADABLE` are raised. Raises `RequestError` if no process can start.
    """
    workers = min(workers, len(items))
    if workers < 1:
        for number, item in enumerate(items):
            try:
                for piece in read(item):
                    yield number, piece
            except UNREADABLE as error:
                yield number, Ended(reason_of(error))
            else:
                yield number, Ended("")
        return
    crew = _Crew(read, items, depth)
    try:
        yield from crew.work(workers)
    finally:
        crew.stop()


class _Crew(Generic[Item, Piece]):
    """Worker processes with one thread each that waits for results, so they decode while the caller computes."""

    def __init__(self, read: Callable[[Item], Iterator[Piece]], items: Sequence[Item], depth: int) -> None:
        self.read, self.items = read, items
        self.numbers = deque(range(len(items)))
        self.found: SimpleQueue[tuple[int, Any] | BaseException] = SimpleQueue()
        self.room = threading.Semaphore(depth)
        self.stopped = False
        self.processes: set[Any] = set()
        self.lock = threading.Lock()
        # Forkserver: a decoder or thread that crosses a fork can hang the child.
        start_server()
        self.context = multiprocessing.get_context("forkserver")

    def work(self, workers: int) -> Iterator[tuple[int, Piece | Ended]]:
        for _ in range(workers):
            threading.Thread(target=self._attend, daemon=True).start()
        left = len(self.items)
        while left:
            found = self.found.get()
            self.room.release()
            if isinstance(found, BaseException):
                raise found
            left -= isinstance(found[1], Ended)
            yield found

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
        for process in self.processes:
            process.kill()
            process.join()

    def _attend(self) -> None:
        try:
            pipe = self._hire()
            while (number := self._next()) is not None:
                if not self._follow(pipe, number) and self.numbers:
                    pipe = self._hire()
            pipe.close()
        except BaseException as error:
            self._tell(error)

    def _next(self) -> int | None:
        """Returns the number of the next item. None if there is none left, or the work is stopped."""
        with self.lock:
            return self.numbers.popleft() if self.numbers and not self.stopped else None

    def _follow(self, pipe: Connection, number: int) -> bool:
        """Forwards the pieces of one item. Returns whether the process is still alive."""
        try:
            pipe.send(self.items[number])
            while True:
                piece = pipe.recv()
                if isinstance(piece, BaseException):
                    raise piece
                self._tell((number, piece))
                if isinstance(piece, Ended):
                    return True
        except (EOFError, ConnectionError):
            # Only this process reads the item, so nothing else can be the cause.
            self._tell((number, Ended(KILLED)))
            return False

    def _tell(self, found: Any) -> None:
        while not self.stopped:
            if self.room.acquire(timeout=1):
                self.found.put(found)
                return

    def _hire(self) -> Connection:
        here, there = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(there, self.read), daemon=True)
        with self.lock:
            if self.stopped:
                raise InterruptedError
            process.start()
            self.processes.add(process)
        there.close()
        try:
            here.recv()
        except (EOFError, ConnectionError) as error:
            # Not caused by an item. Each process imports the running script up to its main guard.
            raise RequestError(
                'no worker process can start: put the script\'s calls under `if __name__ == "__main__":`, '
                "or use no workers"
            ) from error
        return here  # pyright: ignore[reportReturnType] on Windows its class is another


def _serve(pipe: Connection, read: Callable[[Any], Iterator[Any]]) -> None:
    """Reads the items it receives. Leaves signals, which reach the whole process group, to the parent."""
    leave_stops()
    cv2.setNumThreads(1)
    try:
        pipe.send(None)
        while True:
            for _, piece in relay(read, [pipe.recv()], 0):
                pipe.send(piece)
    except (EOFError, ConnectionError):
        # The parent has finished, or is gone.
        return
    except BaseException as error:
        pipe.send(error)
