"""Connections without a request are closed: after a time, and the oldest of too many first."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from modalgate.launch.serve import connection_limits
from modalgate.launch.serve.connection_limits import LimitedProtocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"in"})


def with_server(work: Callable[[int], Awaitable[None]]) -> None:
    async def run() -> None:
        settings = uvicorn.Config(app, port=0, http=LimitedProtocol, lifespan="off", log_level="critical")
        server = uvicorn.Server(settings)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            await asyncio.wait_for(work(server.servers[0].sockets[0].getsockname()[1]), 30)
        finally:
            server.should_exit = True
            await task

    asyncio.run(run())


def ask(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost:"])
def test_a_connection_without_a_whole_request_is_closed(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "HEADER_SECONDS", 0.2)

    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        assert not await ended(reader)
        # An answer that takes longer is not cut.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/slow"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()

    with_server(work)


def test_the_oldest_silent_connection_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MOST_CONNECTIONS", 3)

    async def work(port: int) -> None:
        busy_reader, busy = await asyncio.open_connection("127.0.0.1", port)
        busy.write(ask("/slow"))
        await asyncio.sleep(0.1)
        silent = []
        for _ in range(4):
            silent.append(await asyncio.open_connection("127.0.0.1", port))
            await asyncio.sleep(0.05)
        assert [not await ended(reader) for reader, _ in silent[:2]] == [True, True]
        # The one that is answered and the newest ones are served.
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
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
