"""A run folder is never overwritten and resumed only as it was."""

from pathlib import Path

import pytest
import yaml
from modalgate.launch.run_folder import differences, open_run
from modalgate.shards.errors import RequestError

SETTINGS = {"kind": "pretrain", "command": ["pretrain"], "data": {"size": 48, "modalities": ["rgb"]}, "tasks": {}}


def test_the_settings_are_kept(tmp_path: Path) -> None:
    open_run(tmp_path / "runs" / "a", SETTINGS, resume=False)
    assert yaml.safe_load((tmp_path / "runs" / "a" / "config.yaml").read_text()) == SETTINGS


def test_an_occupied_folder_says_what_it_holds_and_stays(tmp_path: Path) -> None:
    open_run(tmp_path / "a", SETTINGS, resume=False)
    with pytest.raises(RequestError, match=r"a' already holds a run: choose another name= or add --resume"):
        open_run(tmp_path / "a", {}, resume=False)
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text()) == SETTINGS
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "letter.txt").write_text("dear")
    with pytest.raises(RequestError, match="already holds something else"):
        open_run(tmp_path / "b", SETTINGS, resume=False)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["letter.txt"]
    with pytest.raises(RequestError, match="is a file"):
        open_run(tmp_path / "b" / "letter.txt", SETTINGS, resume=False)


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no run to resume"):
        open_run(tmp_path / "a", SETTINGS, resume=True)
    assert not (tmp_path / "a").exists()


def test_differences_name_the_keys() -> None:
    now = {"kind": "pretrain", "command": ["else"], "data": {"size": 64}, "tasks": {}, "train": {"steps": 9}}
    assert differences(SETTINGS, now) == [
        "data.size was 48, is 64",
        "data.modalities was ['rgb'], is None",
    ]
    with_task = SETTINGS | {"tasks": {"clip_order": {"weight": 1.0}}}
    assert "tasks.clip_order.weight was None, is 1.0" in differences(SETTINGS, with_task)
