"""Hostile requests to a server: malformed, large, slow and silent ones."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import psutil
from hostile_files import MEBIBYTE, film, noise


def form(role: str, name: str, content: bytes) -> bytes:
    head = f'--edge\r\nContent-Disposition: form-data; name="{role}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--edge--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}


@dataclass
class Server:
    """A running `modalgate serve`."""

    process: "subprocess.Popen[bytes]"
    port: int

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and error of the answer; status 0 if the connection was closed."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, said(answer.read())
        except (ConnectionError, OSError) as error:
            return 0, type(error).__name__
        finally:
            connection.close()

    def raw(self, content: bytes) -> tuple[int, str]:
        """Status and error of the answer to bytes that need not be HTTP."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            try:
                while part := connection.recv(65536):
                    found += part
            except OSError as error:
                return 0, type(error).__name__
        status = re.match(rb"HTTP/1.1 (\d+)", found)
        return int(status[1]) if status else 0, said(found.partition(b"\r\n\r\n")[2])

    def memory(self) -> float:
        """MB of the server and of the processes that it started."""
        total = 0
        process = psutil.Process(self.process.pid)
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / MEBIBYTE


def said(body: bytes) -> str:
    """The error in an answer, or the note of one that is scored in part."""
    try:
        found = json.loads(body)
        return str(found.get("error") or found.get("note") or "")[:200]
    except (ValueError, AttributeError):
        return body[:80].decode(errors="replace")


def upload(role: str, name: str, content: bytes, path: str = "/predict?frames=1") -> Callable[[Server], Any]:
    return lambda server: server.send("POST", path, form(role, name, content), FORM)


def many_parts(count: int) -> bytes:
    part = b'--edge\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n\r\n'
    return part * count + b"--edge--\r\n"


def trickle(server: Server) -> tuple[int, str]:
    """Twenty uploads that send a byte now and then; a film must be scored meanwhile."""
    slow = []
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nx")
        slow.append(connection)
        time.sleep(0.02)
    time.sleep(6)
    answer = server.send("POST", "/predict?frames=0&hop=1", form("video", "film.mp4", film()), FORM)
    for connection in slow:
        connection.close()
    return (408, "a film was scored meanwhile") if answer[0] == 200 else answer


def silent_connections(server: Server) -> tuple[int, str]:
    """Five hundred connections that say nothing; a film must be scored meanwhile."""
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(500)]
    answer = server.send("POST", "/predict?frames=0&hop=1", form("video", "film.mp4", film()), FORM)
    for connection in held:
        connection.close()
    return (408, "a film was scored meanwhile") if answer[0] == 200 else answer


def deaf(server: Server) -> tuple[int, str]:
    """A client that reads nothing of a long answer."""
    body = form("video", "film.mp4", film(100.0))
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = (
            "POST /predict?frames=24&hop=0.01 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/x-ndjson\r\n"
            f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        end = time.monotonic() + 60
        time.sleep(2)
        while json.loads(health(server))["predicting"]:
            if time.monotonic() > end:
                return 200, "it is still scored"
            time.sleep(0.2)
    return 408, "ended by the server"


def health(server: Server) -> str:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/health")
    return connection.getresponse().read().decode()


GET = b"GET /health HTTP/1.1\r\nHost: "
REQUESTS: dict[str, Callable[[Server], tuple[int, str]]] = {
    "a host of one bracket": lambda server: server.raw(GET + b"[\r\n\r\n"),
    "a host of strange letters": lambda server: server.raw(GET + b"\xff[::1]:x@\r\n\r\n"),
    "no host": lambda server: server.raw(b"GET /health HTTP/1.1\r\n\r\n"),
    "an origin of one bracket": lambda server: server.send("GET", "/health", None, {"Origin": "http://["}),
    "headers of 1 MB": lambda server: server.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * 2**20 + b"\r\n\r\n"),
    "a path of 60 KB": lambda server: server.raw(b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "not HTTP": lambda server: server.raw(noise(6, 10_000)),
    "a negative length": lambda server: server.raw(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n"
    ),
    "two lengths": lambda server: server.raw(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nxxxxxxxxx"
    ),
    "a chunk of 16 exabytes": lambda server: server.raw(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx"
    ),
    "a body without its end": lambda server: server.raw(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nx"
    ),
    "a form without a boundary": lambda server: server.send(
        "POST", "/predict", b"x" * 1000, {"Content-Type": "multipart/form-data"}
    ),
    "a part's header of 7 MB": lambda server: server.send(
        "POST", "/predict", b"--edge\r\n" + b"a" * 7_000_000 + b": b\r\n\r\n\r\n--edge--\r\n", FORM
    ),
    "a part with a million headers": lambda server: server.send(
        "POST", "/predict", b"--edge\r\n" + b"a: b\r\n" * 1_000_000 + b"\r\n\r\n--edge--\r\n", FORM
    ),
    "a form of 50 000 parts": lambda server: server.send("POST", "/predict", many_parts(50_000), FORM),
    "7 MB before the first part": lambda server: server.send("POST", "/predict", b"\r\n" * 3_500_000, FORM),
    "a file name with a path": upload("video", "../../../../tmp/hostile.mp4", b"x"),
    "a field that the model lacks": upload("../video", "a.mp4", b"x"),
    "a class of 50 KB": upload("video", "a.mp4", b"x", "/predict?class=" + "a" * 50_000),
    "a step of nothing": upload("video", "a.mp4", b"x", "/predict?hop=1e-300"),
    "a step that is not a number": upload("video", "a.mp4", b"x", "/predict?hop=nan"),
    "a billion pictures": upload("video", "a.mp4", b"x", "/predict?frames=1000000000"),
    "a body of 100 MB": lambda server: server.send("POST", "/predict", (bytes(10**6) for _ in range(100))),
    "uploads that trickle": trickle,
    "connections that say nothing": silent_connections,
    "a client that reads nothing": deaf,
}
