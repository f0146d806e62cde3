"""The process that serves: its socket, its folder for recordings, and how it ends."""

import ipaddress
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import FrameType

import psutil

from ...shards.errors import RequestError
from ..runs.next_step import browse
from ..training.device import leave_cores_to

PREFIX = "modalgate-serve-"
# Seconds that answers in progress get when the server stops.
GRACE = 5


def run_server(
    model: Path,
    host: str,
    port: int,
    *,
    max_mb: int,
    queue: int,
    threads: int | None,
    max_seconds: float,
    deadline: float,
    max_memory: int,
) -> None:
    """Serves until interrupted. Raises `RequestError` if a package of the extra `serve` is not installed or too old,
    if the address is not available, and what `open_service` raises.
    """
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401  # the package first: a loaded submodule would hide that it is missing
        import uvicorn
        from python_multipart.multipart import MultipartParser
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise RequestError(f"serve needs {package}: pip install 'modalgate[serve]'") from error
    if "max_header_size" not in signature(MultipartParser.__init__).parameters:
        # Older versions hold headers of any size in memory.
        raise RequestError("serve needs python-multipart 0.0.27 or newer: pip install --upgrade 'modalgate[serve]'")
    from .connection_limits import LimitedProtocol
    from .decoder_process import prepare
    from .score_stream import Limits
    from .server_app import create_app, open_service

    prepare()

    limits = Limits(max_seconds, deadline, max_memory)
    leave_cores_to(1, threads)
    with listen(host, port) as listener, upload_folder() as folder:
        service = open_service(model, folder, max_mb=max_mb, queue=queue, log=_say, limits=limits)

        class Server(uvicorn.Server):
            """Ends predictions before it waits for their answers."""

            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                service.turns.stopping = True
                super().handle_exit(sig, frame)

        settings = uvicorn.Config(
            create_app(service, host),
            http=LimitedProtocol,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="critical",
            timeout_graceful_shutdown=GRACE,
        )
        if not is_loopback(host):
            _say(f"warning: {host} is open to the network without a password: anyone who reaches it can use it")
        _say(f"{service.facts.name} is served at {_address(host, listener)} (stop with Ctrl-C)")
        _say(browse(_address(host, listener)))
        try:
            Server(settings).run([listener])
        finally:
            service.turns.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `RequestError` if it cannot be opened."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise RequestError(
            f"cannot listen on {host} port {port} ({error.strerror}): give another --host or --port"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder in TMPDIR for the recordings that this process scores; deletes those of killed servers."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        owner = re.match(rf"{PREFIX}(\d+)-", folder.name)
        if owner and folder.stat().st_uid == os.getuid() and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def _address(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
