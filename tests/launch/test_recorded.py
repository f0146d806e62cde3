"""The model card's figures come from the run's own records."""

from pathlib import Path

import pytest
from modalgate.launch.recorded import recorded_metrics
from modalgate.shards.errors import DataError
from modalgate.tasks.results import Table, new_result, save_result


def record(run: Path, name: str, columns: list[str], *rows: list[str | float | None]) -> None:
    save_result(new_result(name, name, "", [Table("t", columns, list(rows), "40 clips")], []), run)


def test_fine_tuning_and_the_fused_probe(tmp_path: Path) -> None:
    record(
        tmp_path, "finetune", ["metric", "value", "low", "high"], ["auc", 0.9, 0.8, 1.0], ["none", None, None, None]
    )
    record(tmp_path, "probe", ["feature", "linear", "kNN"], ["rgb", 0.5, 0.4], ["fused", 0.75, 0.6])
    assert recorded_metrics(tmp_path) == {
        "auc (40 clips)": 0.9,
        "linear probe accuracy, fused features (40 clips)": 0.75,
    }


def test_a_fold_has_the_figures_of_all_folds(tmp_path: Path) -> None:
    record(tmp_path, "finetune", ["metric", "value"], ["auc", 0.7])
    (tmp_path / "fold-0").mkdir()
    assert recorded_metrics(tmp_path / "fold-0") == {"auc (40 clips)": 0.7}
    (tmp_path / "other").mkdir()
    assert recorded_metrics(tmp_path / "other") == {}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "probe.json").write_text("{")
    with pytest.raises(DataError, match=r"probe\.json' is damaged"):
        recorded_metrics(tmp_path)
