"""The environment of a run is recorded without secrets."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from modalgate.launch.runs.environment import git_state, read_environment, record_environment
from modalgate.shards.index.table import load_index

SECRETS = ("k3y-0f-wandb" + "0" * 28, "hf_t0ken-0f-the-hub", "pa55w0rd-0f-the-shards", "an0ther-cloud-key")


def test_every_start_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"fingerprint": "abc", "command": ["modalgate", "pretrain", "demo-pretrain"]}
    record_environment(tmp_path, 0, 2, settings)
    record_environment(tmp_path, 7, 1, {**settings, "command": [*settings["command"], "--resume"]})
    first, second = read_environment(tmp_path)
    assert first["command"] == ["modalgate", "pretrain", "demo-pretrain"]
    assert second["command"] == [*first["command"], "--resume"]
    assert (first["step"], second["step"]) == (0, 7)
    assert (first["processes"], first["fingerprint"], first["git"]) == (2, "abc", None)
    for package in ("torch", "torchvision", "torchaudio", "timm", "lightly", "webdataset", "accelerate"):
        assert first["versions"][package] == version(package)
    assert first["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert first["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert first["machine"]["processor"]


def test_damaged_record_is_moved_aside_and_replaced(tmp_path: Path) -> None:
    record_environment(tmp_path, 0, 1, {})
    path = tmp_path / "environment.json"
    whole = path.read_text()
    for number, text in enumerate((whole[:40], '{"starts": 3}')):
        path.write_text(text)
        record_environment(tmp_path, number, 1, {})
        assert [start["step"] for start in read_environment(tmp_path)] == [number]
    assert (tmp_path / "environment.json.damaged").read_text() == whole[:40]
    assert (tmp_path / "environment.json.damaged-2").read_text() == '{"starts": 3}'


def test_git_state_of_the_working_directory(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@x"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "--quiet")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "-m", "one")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "untracked").write_text("1")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


class ByteRanges(SimpleHTTPRequestHandler):
    """A file server with byte ranges and a password."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not self.headers.get("Authorization") or not path.is_file():
            self.send_error(404 if path.parent.is_dir() else 500)
            return
        data = path.read_bytes()
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            data = data[int(first) : int(last) + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def guarded(packed: Path) -> Iterator[str]:
    """The address of `packed` with its password."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(ByteRanges, directory=str(packed))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://ann:{SECRETS[2]}@127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.slow
def test_no_secret_is_written_or_printed(
    tmp_path: Path, guarded: str, packed: Path, tiny_config: str, launch: Callable[..., list[int]]
) -> None:
    log = tmp_path / "log"
    command = ["pretrain", tiny_config, f"data.shards={guarded}", f"out={tmp_path / 'runs'}", "name=quiet"]
    command += ["train.steps=2", "wandb=offline"]
    named = ("WANDB_API_KEY", "HF_TOKEN", "SHARDS_PASSWORD", "AWS_SECRET_ACCESS_KEY")

    def run(*more: str) -> int:
        more_variables = dict(zip(named, SECRETS, strict=True))
        return launch([*command, *more], log=str(log), environment=more_variables)[0]

    assert run() == 0, log.read_text()
    assert run("train.steps=3", "--resume") == 0, log.read_text()
    assert run("data.size=64", "--resume") == 2
    assert run(f"data.shards={guarded}/nowhere", "name=other", "--debug") == 2
    said = log.read_text()
    assert "/nowhere" in said
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"config.yaml", "environment.json", "metrics.jsonl", "encoder.json"} <= {path.name for path in files}
    assert any(path.suffix == ".wandb" for path in files)
    for secret in SECRETS:
        assert [str(path) for path in files if secret.encode() in path.read_bytes()] == []
        assert secret not in said
    starts = read_environment(tmp_path / "runs" / "quiet")
    assert [start["step"] for start in starts] == [0, 2]
    assert starts[0]["fingerprint"] == load_index(packed).fingerprint
