"""The metrics file is always written; wandb is optional."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from modalgate.launch.runs.boards import Boards, tracked_identity
from modalgate.launch.runs.metric_log import Tracker, read_metrics, show_result
from modalgate.tasks.records import Gates, Table, new_result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ..given.wandb_file import read_history


def lost(line: str) -> None:
    raise AssertionError(f"the tracker gave up: {line}")


def tracked(
    run: Path,
    mode: str,
    settings: dict[str, int],
    identity: str | None = None,
    step: int = 0,
    tensorboard: bool = False,
) -> Tracker:
    return Tracker(run, Boards(run, mode, settings, lost, identity, step, tensorboard), step)


def test_one_json_line_per_log(tmp_path: Path) -> None:
    tracker = tracked(tmp_path, "disabled", {})
    tracker.log(1, {"a/loss": 0.5, "gate/rgb": math.nan})
    assert read_metrics(tmp_path) == [{"step": 1, "a/loss": 0.5, "gate/rgb": None}]  # readable while it runs
    tracker.log(2, {"a/loss": math.inf})
    tracker.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert not (tmp_path / "wandb").exists()


def test_resumed_run_drops_lines_to_be_logged_again_and_a_truncated_line(tmp_path: Path) -> None:
    tracker = tracked(tmp_path, "disabled", {})
    for step in range(1, 5):
        tracker.log(step, {"x": step})
    tracker.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "x"')
    tracker = tracked(tmp_path, "disabled", {}, tracker.identity, step=2)
    tracker.log(3, {"x": 30.0})
    tracker.close()
    assert [(line["step"], line["x"]) for line in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 30.0)]


LINE = {
    "loss": 1.5,
    "order/loss": 1.0,
    "order/accuracy": 0.75,
    "pairs/loss": 0.5,
    "gate/rgb": 0.25,
    "gate/audio": 0.75,
}
RESULT = new_result(
    "probe",
    "A probe",
    "modalgate probe",
    [Table("Frozen", ["feature", "value"], [["fused", 0.5], ["rgb", None]])],
    [Gates("By class", ["rgb", "audio"], ["calm", "fight"], [[0.2, 0.8], [0.6, 0.4]])],
)


def test_wandb_runs_offline_inside_the_run_folder_as_one_run_with_tables_and_gates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Interrupted, resumed and evaluated. The log is read as wandb reads it."""
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    (tmp_path / "config.yaml").write_text("wandb: offline\n")
    first = tracked(tmp_path, "offline", {"seed": 1})
    first.log(1, {**LINE, "gate/rgb": 0.5, "gate/audio": 0.5})
    first.close(exit_code=1)
    second = tracked(tmp_path, "offline", {"seed": 1}, first.identity, step=1)
    second.log(2, {**LINE, "pairs/loss": math.nan})
    second.close()
    assert second.identity == first.identity == tracked_identity(tmp_path)
    show_result(tmp_path, RESULT, lost)
    folders = sorted((tmp_path / "wandb").glob(f"offline-run-*-{first.identity}*"))
    assert len(folders) == len(list((tmp_path / "wandb").glob("offline-run-*"))) >= 1

    told = read_history(tmp_path)
    assert (told["order/loss"], told["gate/rgb"]) == (1.0, 0.25)

    def file(key: str) -> Path:
        (found,) = (tmp_path / "wandb").glob(f"offline-run-*/files/{told[f'{key}.path']}")
        return found

    tasks, frozen = (json.loads(file(key).read_text()) for key in ("training/Tasks", "probe/Frozen"))
    assert tasks["columns"] == ["task", "loss", "accuracy"]
    assert tasks["data"] == [["order", 1.0, 0.75], ["pairs", None, None]]
    assert frozen["data"] == [["fused", 0.5], ["rgb", None]]
    for key in ("training/Gate weights", "training/Last gate weights", "probe/By class"):
        assert told[f"{key}._type"] == "image-file"
        assert file(key).read_bytes().startswith(b"\x89PNG")
    for path in (tmp_path / "wandb").rglob("*"):
        if path.is_file():
            assert b"0123456789abcdef0123456789abcdef01234567" not in path.read_bytes()
    assert capfd.readouterr() == ("", "")


def test_runs_of_one_second_keep_their_identity(tmp_path: Path) -> None:
    """wandb numbers the folder of the second one, and an id may hold a dash."""
    assert tracked_identity(tmp_path) is None
    for folder, log in (
        ("run-20260101_120000-first", "run-first.wandb"),
        ("offline-run-20260101_120001-my-run", "run-my-run.wandb"),
        ("offline-run-20260101_120001-my-run-1", "run-my-run.wandb"),
    ):
        (tmp_path / "wandb" / folder).mkdir(parents=True)
        (tmp_path / "wandb" / folder / log).touch()
    assert tracked_identity(tmp_path) == "my-run"
    (tmp_path / "wandb" / "run-20260101_120002-last").mkdir()
    (tmp_path / "wandb" / "run-20260101_120002-last" / "run-last.wandb").touch()
    assert tracked_identity(tmp_path) == "last"


def test_the_agent_of_a_sweep_names_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    monkeypatch.setenv("WANDB_RUN_ID", "a1b2c3d4")
    wandb.teardown()  # it reads the environment once in a process
    tracker = tracked(tmp_path, "offline", {})
    tracker.close()
    wandb.teardown()
    assert tracker.identity == tracked_identity(tmp_path) == "a1b2c3d4"


def test_tensorboard_has_the_same_values_and_hides_replaced_ones(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("wandb: disabled\ntensorboard: true\n")
    tracker = tracked(tmp_path, "disabled", {}, tensorboard=True)
    for step in (1, 2, 3):
        tracker.log(step, {"a/loss": 10.0 + step})
    tracker.close()
    tracker = tracked(tmp_path, "disabled", {}, tracker.identity, step=2, tensorboard=True)
    tracker.log(3, {**LINE, "a/loss": 0.5, "gate/rgb": math.nan})
    tracker.close()
    show_result(tmp_path, RESULT, lost)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a/loss")] == [(1, 11.0), (2, 12.0), (3, 0.5)]
    (picture,) = events.Images("training/Gate weights")
    assert picture.step == 3
    assert picture.width > 100
    assert events.Images("probe/By class")[0].step == 4
    (table,) = events.Tensors("probe/Frozen/text_summary")
    assert b"| fused | 0.5 |" in table.tensor_proto.string_val[0]
    assert not (tmp_path / "wandb").exists()


def test_failing_tracker_is_reported_once_and_the_file_continues(tmp_path: Path) -> None:
    """Online without a key, in a new process."""
    script = (
        "import sys; from pathlib import Path\n"
        "from modalgate.launch.runs.boards import Boards\n"
        "from modalgate.launch.runs.metric_log import Tracker\n"
        "run = Path(sys.argv[1]); tracker = Tracker(run, Boards(run, 'online', {}, print))\n"
        "tracker.log(1, {'x': 1.0}); tracker.close()"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"wandb is not available \(.+\): the metrics go to metrics\.jsonl only\n", result.stdout)
    assert result.stderr == ""
    assert read_metrics(tmp_path) == [{"step": 1, "x": 1.0}]
