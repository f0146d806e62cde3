"""A real `modalgate serve` in a separate process, and requests to it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any


@dataclass
class Answer:
    """One response, read whole."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class Served:
    """`port` on this machine, `folder`: its TMPDIR, `said`: the file of its standard error."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    said: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=240)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {}, **more)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def predict(self, path: str = "", headers: dict[str, str] | None = None, **files: Path) -> Answer:
        """POST /predict with a form of files by their roles."""
        body, kind = form_of(files)
        return self.ask("POST", f"/predict{path}", body, {"Content-Type": kind} | (headers or {}))

    def kept(self) -> list[Path]:
        """The files of recordings that lie on its disk."""
        return [path for path in self.folder.rglob("modalgate-serve-*/**/*") if path.is_file()]

    def end(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(600)


def form_of(files: dict[str, Path]) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    body = b""
    for role, path in files.items():
        head = f'--edge\r\nContent-Disposition: form-data; name="{role}"; filename="{path.name}"\r\n\r\n'
        body += head.encode() + path.read_bytes() + b"\r\n"
    return body + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def until(true: Callable[[], Any], seconds: float = 240) -> Any:
    """Waits until `true()` is true and returns its value; `TimeoutError` if it never is."""
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
    return value


@contextmanager
def serve(model: Path, folder: Path, *options: str) -> Iterator[Served]:
    """Runs the command until it listens; kills it in the end if it still runs."""
    said = folder / "said.txt"
    command = [sys.executable, "-m", "modalgate.launch.cli", "serve", str(model), "--port", "0", *options]
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    with said.open("wb") as errors, subprocess.Popen(command, stderr=errors, env=environment) as process:
        try:
            until(lambda: "is served at" in said.read_text() or process.poll() is not None, 600)
            found = re.search(r"http://\S+:(\d+)", said.read_text())
            assert found, said.read_text()
            yield Served(process, int(found[1]), folder, said)
        finally:
            process.kill()
