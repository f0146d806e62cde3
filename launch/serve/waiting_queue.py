"""One prediction at a time, in order of arrival, and a limit on how many may wait."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

T = TypeVar("T")


class Full(Exception):
    """The queue is full."""


class Stopping(Exception):
    """The server is stopping."""


class Turns:
    """A model's only worker thread. At most `waiting` are admitted in addition to the running one."""

    def __init__(self, waiting: int) -> None:
        self.places = waiting + 1
        self.admitted = 0
        self.stopping = False
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")

    @property
    def busy(self) -> bool:
        """Whether a prediction is running."""
        return self._lock.locked()

    def check_room(self) -> None:
        """Raises `Full` if there is no place."""
        if self.admitted >= self.places:
            raise Full

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place, from the end of the upload to the end of scoring. Raises `Full` if there is none."""
        self.check_room()
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until all earlier ones are done. Raises `Stopping` once `stopping` is set."""
        async with self._lock:
            self._go_on()
            yield

    async def call(self, work: Callable[[], T]) -> T:
        """Runs `work()` in the worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def iterate(self, steps: Iterator[T]) -> AsyncGenerator[T]:
        """The values of a generator, each step run in the worker thread.

        If the consumer leaves, the running step is finished and then the generator closed: there is only one thread.
        Raises `Stopping` after the step during which `stopping` was set.
        """
        try:
            while (found := await self.call(lambda: next(steps, self))) is not self:
                yield found  # pyright: ignore[reportReturnType]
                self._go_on()
        finally:
            await asyncio.shield(self.call(getattr(steps, "close", lambda: None)))

    def _go_on(self) -> None:
        if self.stopping:
            raise Stopping

    def close(self) -> None:
        """Ends the thread after the running step."""
        self._thread.shutdown(wait=True, cancel_futures=True)
