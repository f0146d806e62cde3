"""The figures of the model card come from the records of the run."""

from pathlib import Path

import pytest
from modalgate.launch.runs.recorded import alarm_threshold, keep_record, recorded_metrics
from modalgate.shards.errors import DataError
from modalgate.tasks.evaluation.validation_choices import ON_VALIDATION, OUT_OF_FOLD
from modalgate.tasks.records import Table, new_result, save_result


def record(run: Path, name: str, columns: list[str], *rows: list[str | float | None]) -> None:
    save_result(new_result(name, name, "", [Table("t", columns, list(rows), "40 clips")], []), run)


def test_recorded_metrics_are_those_of_fine_tuning_or_the_fused_probe(tmp_path: Path) -> None:
    record(
        tmp_path, "finetune", ["metric", "value", "low", "high"], ["auc", 0.9, 0.8, 1.0], ["none", None, None, None]
    )
    record(tmp_path, "probe", ["feature", "linear", "kNN"], ["rgb", 0.5, 0.4], ["fused", 0.75, 0.6])
    assert recorded_metrics(tmp_path) == {
        "auc (40 clips)": 0.9,
        "linear probe accuracy, fused features (40 clips)": 0.75,
    }


def test_only_the_validated_threshold_is_recorded(tmp_path: Path) -> None:
    rows: list[list[str | float | None]] = [["threshold of best F1", 0.3]]
    tables = [Table("Test clips", ["metric", "value"], [["auc", 0.7]], "40 clips")]
    tables += [Table(title, ["figure", "value"], rows, "n") for title in (OUT_OF_FOLD, ON_VALIDATION)]
    save_result(new_result("finetune", "f", "", tables[:2], []), tmp_path)
    assert alarm_threshold(recorded_metrics(tmp_path)) is None
    save_result(new_result("finetune", "f", "", tables, []), tmp_path)
    assert alarm_threshold(recorded_metrics(tmp_path)) == 0.3


def test_bundle_of_a_fold_has_the_metrics_of_all_folds(tmp_path: Path) -> None:
    record(tmp_path, "finetune", ["metric", "value"], ["auc", 0.7])
    for name in ("fold-0", "group-camera1", "final"):
        (tmp_path / name).mkdir()
        assert recorded_metrics(tmp_path / name) == {}
    (tmp_path / "config.yaml").touch()
    for name in ("fold-0", "group-camera1", "final"):
        assert recorded_metrics(tmp_path / name) == {"auc (40 clips)": 0.7}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "probe.json").write_text("{")
    with pytest.raises(DataError, match=r"probe\.json' is damaged"):
        recorded_metrics(tmp_path)


def test_replacing_the_record_of_another_command_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("modalgate probe A", "modalgate probe A"):
        keep_record(new_result("probe", "Probe", command, [], []), tmp_path)
    assert capsys.readouterr().err == ""
    keep_record(new_result("probe", "Probe", "modalgate probe A --label room", [], []), tmp_path)
    path = tmp_path / "results" / "probe.json"
    assert capsys.readouterr().err == f"note: this replaces '{path}', the record of: modalgate probe A\n"
    path.write_text("{")
    keep_record(new_result("probe", "Probe", "modalgate probe A", [], []), tmp_path)
    assert "the record of: a damaged file" in capsys.readouterr().err
