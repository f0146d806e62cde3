"""Uploads: a recording over HTTP, written to files whose names the client cannot choose, with a size limit."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ...shards.errors import RequestError, choice_error
from ...shards.media.arrays import ARRAY_SUFFIXES

MEBIBYTE = 2**20
# Seconds without a byte after which the client counts as gone.
PATIENCE = 60.0
# Uploads that arrive at the same time, and seconds after which a slow one gives way to a new one.
MOST_ARRIVING, SETTLED = 16, 5.0
# Seconds between two looks at an upload without data.
TICK = 1.0
# Of a part of a form: number of headers, and bytes of each.
MOST_HEADERS, MOST_HEADER_BYTES = 8, 4096


class TooLarge(Exception):
    """The upload is larger than allowed."""


class Stalled(Exception):
    """The upload is too slow, for the reason in the message."""


class Crowded(Exception):
    """Too many uploads arrive, and all have only just begun."""


@dataclass
class Progress:
    """An upload that arrives: when it began, the seconds that it may take, its bytes, and why it has to end."""

    begun: float
    deadline: float
    received: int = 0
    ended: str = ""

    @property
    def rate(self) -> float:
        """Bytes per second so far."""
        return self.received / max(time.monotonic() - self.begun, 1e-6)


class Receiving:
    """The uploads that arrive. At most `MOST_ARRIVING`: then the slowest one gives way to the next."""

    def __init__(self) -> None:
        self.arriving: list[Progress] = []

    @contextmanager
    def admit(self, deadline: float) -> Iterator[Progress]:
        """A place for one upload, which must be whole after `deadline` seconds. Raises `Crowded`."""
        now = time.monotonic()
        if len(self.arriving) >= MOST_ARRIVING:
            settled = [one for one in self.arriving if now - one.begun > SETTLED and not one.ended]
            if not settled:
                raise Crowded(f"{MOST_ARRIVING} recordings arrive already, the most allowed: try again later")
            min(settled, key=lambda one: one.rate).ended = "it was the slowest of too many uploads"
        progress = Progress(now, deadline)
        self.arriving.append(progress)
        try:
            yield progress
        finally:
            self.arriving.remove(progress)


@dataclass(frozen=True)
class Upload:
    """A stored file, and the client's `name` for it: used in messages, never in paths."""

    path: Path
    name: str


async def receive_upload(
    request: Request,
    folder: Path,
    roles: Collection[str],
    max_bytes: int,
    name: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Upload]:
    """Writes the body to `folder`: one file per form field of `roles`, or a plain body as the first role.

    Nothing is held in memory. `name`: of a plain body. `progress`: counts its bytes and may end it. Raises `TooLarge`
    as soon as more than `max_bytes` are announced or received; `Stalled`; `RequestError` for an unknown or repeated
    field, and without a file; Starlette's `ClientDisconnect`; `OSError` if the disk is full.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise TooLarge
    kind, options = parse_options_header(request.headers.get("content-type"))
    chunks = _counted(request, max_bytes, progress or Progress(time.monotonic(), math.inf))
    if kind != b"multipart/form-data":
        upload = place(folder, next(iter(roles)), name or "")
        with upload.path.open("wb") as file:
            async for chunk in chunks:
                file.write(chunk)
        return {upload.path.stem: upload}
    form = _Form(folder, roles)
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_begin": form.begin_part,
                "on_header_field": form.add_header_name,
                "on_header_value": form.add_header_value,
                "on_header_end": form.end_header,
                "on_headers_finished": form.open_file,
                "on_part_data": form.write,
                "on_part_end": form.close,
                "on_end": form.end,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=MOST_HEADER_BYTES,
        )
        async for chunk in chunks:
            parser.write(chunk)
    except FormParserError as error:
        raise RequestError(f"the form cannot be read: {error}") from error
    finally:
        form.close()
    if not form.ended:
        raise RequestError("the form ends before its last boundary")
    if not form.files:
        raise RequestError(f"the form holds no file: give one as {' or '.join(roles)}")
    return form.files


def place(folder: Path, role: str, name: str) -> Upload:
    """The path of a file: its role, with the suffix only if it is a known one of arrays."""
    shown = shown_name(name) or role
    suffix = Path(shown).suffix.lower()
    return Upload(folder / (role + (suffix if suffix in ARRAY_SUFFIXES else "")), shown)


def shown_name(text: str) -> str:
    """A client's file name made safe to print: no folders, no control characters, not long."""
    base = text.replace("\\", "/").rpartition("/")[2]
    printable = "".join(character if character.isprintable() else "?" for character in base).strip()
    return printable if len(printable) <= 80 else f"{printable[:60]}…{printable[-18:]}"


async def _counted(request: Request, max_bytes: int, progress: Progress) -> AsyncIterator[bytes]:
    chunks = request.stream()
    heard = time.monotonic()
    while True:
        coming = asyncio.ensure_future(anext(chunks, None))
        try:
            while not (await asyncio.wait([coming], timeout=TICK))[0]:
                now = time.monotonic()
                if now - heard > PATIENCE:
                    raise Stalled(f"no data for {PATIENCE:g} s")
                _check_pace(progress, now)
        finally:
            coming.cancel()
        heard = time.monotonic()
        chunk = coming.result()
        if chunk is None:
            return
        progress.received += len(chunk)
        if progress.received > max_bytes:
            raise TooLarge
        _check_pace(progress, heard)
        yield chunk


def _check_pace(progress: Progress, now: float) -> None:
    if progress.ended:
        raise Stalled(progress.ended)
    if now - progress.begun > progress.deadline:
        raise Stalled(f"the recording has not arrived after {progress.deadline:g} s (--deadline)")


class _Form:
    """The files of a form, each written while its part is received."""

    def __init__(self, folder: Path, roles: Collection[str]) -> None:
        self.folder, self.roles = folder, roles
        self.files: dict[str, Upload] = {}
        self.ended = False
        self.headers: dict[bytes, bytes] = {}
        self.name, self.value = b"", b""
        self.file: BufferedWriter | None = None

    def begin_part(self) -> None:
        self.headers = {}

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def end_header(self) -> None:
        self.headers[self.name.lower()] = self.value
        self.name, self.value = b"", b""

    def open_file(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition"))
        role = options.get(b"name", b"").decode(errors="replace")
        if role not in self.roles:
            raise choice_error("form field", role, self.roles)
        if role in self.files:
            raise RequestError(f"the form holds '{role}' twice")
        self.files[role] = place(self.folder, role, options.get(b"filename", b"").decode(errors="replace"))
        self.file = self.files[role].path.open("wb")

    def write(self, data: bytes, start: int, end: int) -> None:
        if self.file is not None:
            self.file.write(data[start:end])

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def end(self) -> None:
        self.ended = True
