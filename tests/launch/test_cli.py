"""The command line: quick help, exit statuses, one line for every failure."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from modalgate.launch import cli
from modalgate.shards.errors import DataError, RequestError


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit status and standard error."""
    status = cli.main(arguments)
    return status, capsys.readouterr().err


def test_help_imports_no_heavy_library() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "modalgate.launch.cli", "--help"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0
    assert "pretrain" in told.stdout
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert len(imported) > 50
    heavy = {"torch", "numpy", "wandb", "lightly", "cv2", "matplotlib", "accelerate", "av", "fsspec", "sklearn"}
    assert not imported & heavy


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    import modalgate

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"modalgate {modalgate.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "shw"], "Did you mean 'show'?"),
        (["config"], "Missing command"),
        (["pack"], "Missing argument 'SOURCE'"),
        (["pack", "a", "b", "--jsn", "x"], "--json"),
        (["world", "out", "--clips", "0"], "Invalid value for '--clips'"),
        (["config", "check", "demo-pretrain", "tasks.clip_ordr={}"], "'tasks.clip_ordr': unknown pretext task"),
    ],
)
def test_invalid_request_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, line = told(capsys, *arguments)
    assert status == 2
    assert line.startswith("error: ")
    assert message in line
    assert line.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RequestError("no such task"), 2, "error: no such task\n"),
        (DataError("three files are broken"), 3, "error: three files are broken\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            ValueError("odd\nsecond line"),
            1,
            "internal error: ValueError: odd  (rerun with --debug for the traceback)\n",
        ),
    ],
)
def test_every_failure_has_its_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    line: str,
) -> None:
    def failing() -> list[tuple[str, str, str]]:
        raise error

    monkeypatch.setattr("modalgate.launch.config.load.list_configs", failing)
    assert told(capsys, "config", "list") == (status, line)


@pytest.mark.parametrize(
    "arguments", [["--debug", "config", "show", "nothing"], ["config", "show", "nothing", "--debug"]]
)
def test_debug_shows_the_traceback_at_any_position(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, text = told(capsys, *arguments)
    assert status == 2
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith("error: unknown config 'nothing'")


def test_config_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "list", "--json", str(tmp_path / "list.json")]) == 0
    listed = capsys.readouterr().out
    assert all(word in listed for word in ("name", "kind", "description", "demo-pretrain"))
    assert max(map(len, listed.splitlines())) <= 80
    names = [entry["name"] for entry in json.loads((tmp_path / "list.json").read_text())]
    assert {"demo-pretrain", "demo-violence"} <= set(names)
    assert cli.main(["config", "show", "demo-pretrain", "train.steps=3"]) == 0
    shown = capsys.readouterr().out
    assert "steps: 3\n" in shown
    assert "  # Length of a window in seconds." in shown
    assert cli.main(["config", "show", "demo-pretrain", "data.modalities=[]", "--plain"]) == 0
    assert "# Length" not in capsys.readouterr().out
    assert cli.main(["config", "check", "demo-pretrain"]) == 0
    valid, missing = capsys.readouterr().out.splitlines()
    assert valid == "config 'demo-pretrain' is valid for `modalgate pretrain`"
    assert missing == "still missing: data.shards=VALUE"
    assert cli.main(["config", "reference"]) == 0
    assert "`train.learning_rate`" in capsys.readouterr().out


def test_check_prints_how_the_kind_was_inferred(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("task: violence\ndata: {shards: packed}\n", encoding="utf-8")
    assert cli.main(["config", "check", str(tmp_path / "mine.yaml")]) == 0
    assert "for `modalgate finetune` (kind not given: key 'task' means finetune)\n" in capsys.readouterr().out


def test_json_into_a_missing_folder_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = told(capsys, "config", "list", "--json", str(tmp_path / "no" / "list.json"))
    assert status == 2
    assert "cannot write" in line


def test_signals_are_handled_during_a_command_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before, seen = [signal.getsignal(number) for number in numbers], []

    def app(*arguments: object, **more: object) -> None:
        seen.append(signal.getsignal(signal.SIGUSR1))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cli, "app", app)
    assert cli.main(["study"]) == 130
    assert seen == [signal.SIG_IGN]
    assert [signal.getsignal(number) for number in numbers] == before
