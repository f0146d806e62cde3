"""A run folder is never overwritten, and resumes only with the same settings."""

from pathlib import Path

import pytest
import yaml
from modalgate.launch.runs.folder import accept_changes, differences, open_run
from modalgate.shards.errors import RequestError

SETTINGS = {"kind": "pretrain", "command": ["pretrain"], "data": {"size": 48, "modalities": ["rgb"]}, "tasks": {}}


def test_settings_are_saved(tmp_path: Path) -> None:
    open_run(tmp_path / "runs" / "a", SETTINGS, resume=False)
    assert yaml.safe_load((tmp_path / "runs" / "a" / "config.yaml").read_text()) == SETTINGS


def test_occupied_folder_is_named_and_not_changed(tmp_path: Path) -> None:
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


def test_online_probe_may_change_on_resume() -> None:
    probe = {"every": 3, "shards": None, "label": "label", "train": "train", "test": "val", "neighbours": 20}
    assert differences({**SETTINGS, "probe": None}, {**SETTINGS, "probe": probe}) == []
    assert differences(SETTINGS, {**SETTINGS, "probe": {**probe, "every": 5}}) == []


def test_differences_name_the_keys() -> None:
    now = {"kind": "pretrain", "command": ["else"], "data": {"size": 64}, "tasks": {}, "train": {"steps": 9}}
    assert differences(SETTINGS, now) == [
        "data.size was 48, is 64",
        "data.modalities was ['rgb'], is None",
    ]
    with_task = SETTINGS | {"tasks": {"clip_order": {"weight": 1.0}}}
    assert "tasks.clip_order.weight was None, is 1.0" in differences(SETTINGS, with_task)


def test_changes_are_accepted_by_key(tmp_path: Path) -> None:
    before = {"seed": 0, "train": {"steps": 9, "decay": 0.1}, "tasks": {"order": {"weight": 1.0}}, "fingerprint": "a"}
    now = {"seed": 1, "train": {"steps": 9, "decay": 0.2}, "tasks": {"order": {"weight": 1.0}, "pace": {"weight": 2}}}
    run = tmp_path / "run"
    open_run(run, before, resume=False)
    open_run(run / "fold-0", before, resume=False)
    kept = (run / "config.yaml").read_text()
    refused = r"seed was 0, is 1; undo the changes, accept them with --accept KEY, or choose another name="
    with pytest.raises(RequestError, match=refused):
        accept_changes(run, now, ["train.decay", "tasks.pace"])
    with pytest.raises(RequestError, match="unknown changed setting to --accept 'sede': did you mean 'seed'"):
        accept_changes(run, now, ["sede"])
    with pytest.raises(RequestError, match=r"'train\.steps'"):
        accept_changes(run, now, ["seed", "train.decay", "tasks.pace", "train.steps"])
    assert (run / "config.yaml").read_text() == kept
    accept_changes(run, now, ["seed", "train.decay", "tasks.pace"])
    for folder in (run, run / "fold-0"):
        assert yaml.safe_load((folder / "config.yaml").read_text()) == now | {"fingerprint": "a"}
    open_run(run, now | {"fingerprint": "a"}, resume=True)


def test_other_shards_are_rejected_unless_accepted(tmp_path: Path) -> None:
    settings = {"data": {"shards": "here"}}
    open_run(tmp_path / "run", settings | {"fingerprint": "a"}, resume=False)
    with pytest.raises(RequestError, match="fingerprint was 'a', is 'b'"):
        open_run(tmp_path / "run", settings | {"fingerprint": "b"}, resume=True)
    moved = {"data": {"shards": "there"}}
    accept_changes(tmp_path / "run", moved, ["data.shards"])
    open_run(tmp_path / "run", moved | {"fingerprint": "b"}, resume=True)
    accept_changes(tmp_path / "run", moved, ["fingerprint"])
    open_run(tmp_path / "run", moved | {"fingerprint": "c"}, resume=True)


def test_chosen_settings_are_not_changes(tmp_path: Path) -> None:
    """The run has the folds and the label column that its clips chose; the same command still leaves them open."""
    asked = {"kind": "finetune", "seed": 0, "data": {"folds": None, "leaky": False, "label": "label"}}
    chosen = {**asked, "data": {"folds": 5, "leaky": False, "label": "room"}}
    open_run(tmp_path / "a", chosen, resume=False)
    accept_changes(tmp_path / "a", {**asked, "seed": 1}, ["seed"])
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text()) == {**chosen, "seed": 1}
    other = {**asked, "data": {"folds": 3, "leaky": False, "label": "label"}}
    with pytest.raises(RequestError, match=r"data\.folds was 5, is 3"):
        accept_changes(tmp_path / "a", {**other, "seed": 2}, ["seed"])
