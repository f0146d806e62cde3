"""Connections without a request are closed: after a time, and the oldest of too many first."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from modalgate.launch.serve import connection_limits
from modalgate.launch.serve.connection_limits import LimitedProtocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers the path /slow when the test sets the event."""
    if scope["path"] == "/slow":
        await ANSWER[0].wait()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"in"})


# An event belongs to the loop of one test.
ANSWER: list[asyncio.Event] = []


def with_server(work: Callable[[int], Awaitable[None]]) -> None:
    async def run() -> None:
        ANSWER[:] = [asyncio.Event()]
        settings = uvicorn.Config(app, port=0, http=LimitedProtocol, lifespan="off", log_level="critical")
        server = uvicorn.Server(settings)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            await asyncio.wait_for(work(server.servers[0].sockets[0].getsockname()[1]), 240)
        finally:
            server.should_exit = True
            await task

    asyncio.run(run())


def ask(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_a_connection_without_a_whole_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(port: int) -> None:
        for begun in (b"", b"GET / HTTP/1.1\r\nHost:"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert not await ended(reader)

    monkeypatch.setattr(connection_limits, "HEADER_SECONDS", 0.2)
    with_server(work)


def test_an_answer_may_take_longer_than_the_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    look = LimitedProtocol._look

    def watched(connection: LimitedProtocol) -> None:
        look(connection)
        looks.append(connection.idle)
        if len(looks) == 3:
            ANSWER[0].set()

    monkeypatch.setattr(LimitedProtocol, "_look", watched)

    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/slow"))
        # From here on it is looked at often.
        monkeypatch.setattr(connection_limits, "HEADER_SECONDS", 0.05)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()

    monkeypatch.setattr(connection_limits, "HEADER_SECONDS", 1.0)
    with_server(work)
    assert looks[:3] == [False, False, False]


def test_the_oldest_silent_connection_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MOST_CONNECTIONS", 3)

    async def work(port: int) -> None:
        made: list[LimitedProtocol] = []
        begin = LimitedProtocol.connection_made

        def watched(connection: LimitedProtocol, transport: asyncio.Transport) -> None:
            made.append(connection)
            begin(connection, transport)

        monkeypatch.setattr(LimitedProtocol, "connection_made", watched)
        busy_reader, busy = await asyncio.open_connection("127.0.0.1", port)
        busy.write(ask("/slow"))
        while not made or made[0].idle:
            await asyncio.sleep(0.01)
        silent = []
        for number in range(4):
            silent.append(await asyncio.open_connection("127.0.0.1", port))
            while len(made) < number + 2:
                await asyncio.sleep(0.01)
        assert [not await ended(reader) for reader, _ in silent[:2]] == [True, True]
        # The one that is answered and the newest ones are served.
        ANSWER[0].set()
        assert (await busy_reader.readline()).startswith(b"HTTP/1.1 200")
        for reader, writer in silent[2:]:
            writer.write(ask("/"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        busy.close()

    with_server(work)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes before the end of the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 240)
    except ConnectionError:
        return b""
