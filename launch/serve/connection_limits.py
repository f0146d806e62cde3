"""Limits on connections: how many there are, and how long one may take to say what it wants."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# A process may have 1024 open files by default, and every upload has one too.
MOST_CONNECTIONS = 256
# Seconds from connecting, or from the last answer, to the end of the next request's headers; at most twice as many.
HEADER_SECONDS = 20.0


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 in which connections without a request are closed: after a time, and the oldest of too many first."""

    watch: asyncio.TimerHandle | None = None
    seen: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.made = self.loop.time()
        self.watch = self.loop.call_later(HEADER_SECONDS, self._look)
        if len(self.connections) > MOST_CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, LimitedProtocol) and one.idle]
            min(others, key=lambda one: one.made, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.watch is not None:
            self.watch.cancel()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        """Closes the connection if no request came since the last look."""
        if self.idle and self.cycle is self.seen:
            self.transport.abort()
            return
        self.seen = self.cycle
        self.watch = self.loop.call_later(HEADER_SECONDS, self._look)
