"""The answer to one recording: received, scored and sent, or stopped when its client leaves."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ...fusion.bundle.bundle import Bundle
from .score_stream import Limits, Line, Wish, score
from .serve_schema import ModelFacts
from .uploads import MEBIBYTE, PATIENCE, Receiving, receive_upload
from .waiting_queue import Stopping, Turns

NDJSON = "application/x-ndjson"
STOPPED = "the server was stopped"


@dataclass(frozen=True)
class Service:
    """A classifier and the limits of its use. `folder`: holds recordings while they are scored; `receiving`: the
    uploads that arrive.
    """

    bundle: Bundle
    facts: ModelFacts
    turns: Turns
    folder: Path
    log: Callable[[str], None]
    limits: Limits = field(default_factory=Limits)
    receiving: Receiving = field(default_factory=Receiving)


class Deferred(Response):
    """An answer that `work` sends while it is computed."""

    def __init__(self, work: Callable[[Request, Send], Awaitable[None]]) -> None:
        super().__init__()
        self.work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.work(Request(scope, receive), send)


async def answer(service: Service, request: Request, send: Send, wish: Wish, name: str | None) -> None:
    """Receives a recording, scores it and sends the answer; its files are deleted in any case.

    `name`: of a plain body. Raises `Full`, and what `Receiving`, `receive_upload` and `score` raise, before anything
    is sent.
    """
    begun = time.monotonic()
    roles = [role.name for role in service.facts.roles]
    streamed = NDJSON in request.headers.get("accept", "")
    # Refused before the upload too, to spare its sender the time. A slow sender takes no place.
    service.turns.check_room()
    with TemporaryDirectory(dir=service.folder) as folder:
        try:
            with service.receiving.admit(service.limits.deadline) as progress:
                most = service.facts.max_mb * MEBIBYTE
                uploads = await receive_upload(request, Path(folder), roles, most, name, progress)
        except ClientDisconnect:
            return
        lines = score(service.bundle, service.turns, uploads, wish, service.limits)
        sending = (_stream if streamed else _collect)(request, send, lines)
        answered = await _while_connected(request.receive, sending)
    seconds = time.monotonic() - begun
    shown = next(iter(uploads.values())).name
    service.log(f"'{shown}' {'scored' if answered else 'abandoned by its sender'} after {seconds:.1f} s")


async def _collect(request: Request, send: Send, lines: AsyncGenerator[Line]) -> None:
    found: Line = {}
    windows: list[Line] = []
    async with aclosing(lines):
        async for line in lines:
            kind = line.pop("kind")
            if kind == "window":
                windows.append(line)
            elif kind != "end":
                found |= line
    found |= {"windows": windows, "clip": found.get("clip"), "note": found.get("note")}
    # A client that reads nothing must not hold its connection for ever.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await JSONResponse(found)(request.scope, request.receive, send)


async def _stream(request: Request, send: Send, lines: AsyncGenerator[Line]) -> None:
    begun = False

    async def write(line: Line) -> None:
        nonlocal begun
        if not begun:
            headers = [(b"content-type", NDJSON.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            begun = True
        await send({"type": "http.response.body", "body": json.dumps(line).encode() + b"\n", "more_body": True})

    async with aclosing(lines):
        try:
            async for line in lines:
                await write(line)
        except Stopping:
            if not begun:
                raise
            await write({"kind": "note", "note": STOPPED})
    await send({"type": "http.response.body", "body": b""})


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Runs `work` until the client leaves; returns whether it was finished."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(work), asyncio.create_task(watch())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        worked, _ = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(worked, Exception):
        raise worked
    return worked is None
