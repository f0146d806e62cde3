"""The server process: address, warning, exit, and files of killed servers."""

import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from modalgate.launch.cli import main
from modalgate.launch.serve.server_process import PREFIX, is_loopback, listen, upload_folder
from modalgate.shards.errors import RequestError

from ..given.served import form_of, serve


@pytest.mark.slow
def test_interrupt_stops_the_server_and_its_answers(action_bundle: Path, hall_film: Path, tmp_path: Path) -> None:
    with serve(action_bundle, tmp_path, "--host", "0.0.0.0") as server:
        assert "warning: 0.0.0.0 is open to the network" in server.said.read_text()
        body, kind = form_of({"video": hall_film})
        connection = server.connect()
        headers = {"Content-Type": kind, "Accept": "application/x-ndjson"}
        connection.request("POST", "/predict?hop=0.01", body, headers)
        response = connection.getresponse()
        response.readline()
        assert server.kept()
        assert server.end() == 130
        assert response.read().splitlines()[-1] == b'{"kind": "note", "note": "the server was stopped"}'
        said = server.said.read_text()
        assert said.splitlines()[-1] == "interrupted"
        assert "Traceback" not in said
        assert [path.name for path in tmp_path.iterdir()] == ["said.txt"]


def test_occupied_port_is_named(action_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(action_bundle), "--port", str(port)]) == 2
    line = f"error: cannot listen on 127.0.0.1 port {port} (Address already in use): give another --host or --port\n"
    assert capsys.readouterr().err == line


def test_invalid_address_is_named() -> None:
    with pytest.raises(RequestError, match=r"cannot listen on no\.such\.host\.invalid port 0"):
        listen("no.such.host.invalid", 0)


def test_next_server_deletes_recordings_of_a_killed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, alive = tmp_path / f"{PREFIX}{int(ended.stdout)}-x", tmp_path / f"{PREFIX}{os.getpid()}-x"
    for folder in (dead, alive, tmp_path / f"{PREFIX}notes"):
        folder.mkdir()
        (folder / "video").write_bytes(b"x")
    with upload_folder() as mine:
        assert not dead.exists()
        assert alive.exists()
        assert (tmp_path / f"{PREFIX}notes").exists()
        assert mine.parent == tmp_path
        assert mine.stat().st_mode & 0o077 == 0
    assert not mine.exists()


def test_loopback_addresses_are_recognised() -> None:
    for host, here in (
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("cam.lan", False),
    ):
        assert is_loopback(host) is here


@pytest.mark.parametrize(
    "missing",
    [
        "fastapi",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("uvicorn", "starlette", "python_multipart")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(missing: str, action_bundle: Path) -> None:
    """In a new process, in which nothing is imported yet."""
    hide = f"import sys; sys.modules[{missing!r}] = None; from modalgate.launch.cli import main; "
    command = [sys.executable, "-c", hide + f"sys.exit(main(['serve', {str(action_bundle)!r}, '--port', '0']))"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"error: serve needs (\w+): pip install 'modalgate\[serve\]'", line)


def test_an_old_parser_of_forms_is_refused(
    action_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Old:
        def __init__(self, boundary: bytes, callbacks: object = None, max_size: float = 0) -> None: ...

    monkeypatch.setattr("python_multipart.multipart.MultipartParser", Old)
    assert main(["serve", str(action_bundle), "--port", "0"]) == 2
    assert "needs python-multipart 0.0.27 or newer" in capsys.readouterr().err
