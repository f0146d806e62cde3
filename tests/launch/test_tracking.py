"""The metrics file is always there; wandb may come or go."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from modalgate.launch.tracking import Tracker, need_tensorboard, read_metrics
from modalgate.shards.errors import RequestError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def lost(line: str) -> None:
    raise AssertionError(f"the tracker gave up: {line}")


def test_one_json_line_per_log(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "disabled", {}, lost)
    tracker.log(1, {"a/loss": 0.5, "gate/rgb": math.nan})
    assert read_metrics(tmp_path) == [{"step": 1, "a/loss": 0.5, "gate/rgb": None}]  # readable while it runs
    tracker.log(2, {"a/loss": math.inf})
    tracker.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert not (tmp_path / "wandb").exists()


def test_a_resumed_run_drops_what_it_will_log_again_and_a_cut_line(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "disabled", {}, lost)
    for step in range(1, 5):
        tracker.log(step, {"x": step})
    tracker.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "x"')
    tracker = Tracker(tmp_path, "disabled", {}, lost, tracker.identity, step=2)
    tracker.log(3, {"x": 30.0})
    tracker.close()
    assert [(line["step"], line["x"]) for line in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 30.0)]


def test_wandb_runs_offline_inside_the_run_folder_and_keeps_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    first = Tracker(tmp_path, "offline", {"seed": 1}, lost)
    first.log(1, {"x": 1.0})
    first.close()
    second = Tracker(tmp_path, "offline", {"seed": 1}, lost, first.identity, step=1)
    second.close()
    assert second.identity == first.identity
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{first.identity}/*.wandb"))
    for path in (tmp_path / "wandb").rglob("*"):
        if path.is_file():
            assert b"0123456789abcdef0123456789abcdef01234567" not in path.read_bytes()
    assert capfd.readouterr() == ("", "")


def test_tensorboard_holds_the_same_numbers_and_hides_what_a_resumed_run_logs_again(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "disabled", {}, lost, tensorboard=True)
    for step in (1, 2, 3):
        tracker.log(step, {"a/loss": 10.0 + step})
    tracker.close()
    tracker = Tracker(tmp_path, "disabled", {}, lost, tracker.identity, step=2, tensorboard=True)
    tracker.log(3, {"a/loss": 0.5, "gate/rgb": math.nan})
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a/loss")] == [(1, 11.0), (2, 12.0), (3, 0.5)]


def test_without_its_package_tensorboard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    need_tensorboard()
    monkeypatch.setattr("modalgate.launch.tracking.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'modalgate\[tensorboard\]'"):
        need_tensorboard()


def test_a_tracker_that_cannot_start_is_said_once_and_the_file_goes_on(tmp_path: Path) -> None:
    """Online without a key, in a process that never had one."""
    script = (
        "import sys; from pathlib import Path; from modalgate.launch.tracking import Tracker\n"
        "tracker = Tracker(Path(sys.argv[1]), 'online', {}, print); tracker.log(1, {'x': 1.0}); tracker.close()"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"wandb is not available \(.+\): the metrics go to metrics\.jsonl only\n", result.stdout)
    assert result.stderr == ""
    assert read_metrics(tmp_path) == [{"step": 1, "x": 1.0}]
