"""Uploads: a recording over HTTP, written to files whose names the client cannot choose, with a size limit."""

import asyncio
from collections.abc import AsyncIterator, Collection
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


class TooLarge(Exception):
    """The upload is larger than allowed."""


class Stalled(Exception):
    """No data came for `PATIENCE` seconds."""


@dataclass(frozen=True)
class Upload:
    """A stored file, and the client's `name` for it: used in messages, never in paths."""

    path: Path
    name: str


async def receive_upload(
    request: Request, folder: Path, roles: Collection[str], max_bytes: int, name: str | None = None
) -> dict[str, Upload]:
    """Writes the body to `folder`: one file per form field of `roles`, or a plain body as the first role.

    Nothing is held in memory. `name`: of a plain body. Raises `TooLarge` as soon as more than `max_bytes` are
    announced or received; `Stalled`; `RequestError` for an unknown or repeated field, and without a file; Starlette's
    `ClientDisconnect`; `OSError` if the disk is full.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise TooLarge
    kind, options = parse_options_header(request.headers.get("content-type"))
    chunks = _counted(request, max_bytes)
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


async def _counted(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    chunks, total = request.stream(), 0
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), PATIENCE)
        except TimeoutError as error:
            raise Stalled from error
        if chunk is None:
            return
        total += len(chunk)
        if total > max_bytes:
            raise TooLarge
        yield chunk


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
