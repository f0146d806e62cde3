"""Evaluation records: saving, loading and validation."""

import json
import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from modalgate.shards.errors import DataError
from modalgate.tasks.records import (
    Confusion,
    Curves,
    Example,
    Examples,
    Gates,
    LevelCurves,
    Result,
    Table,
    Timeline,
    load_result,
    new_result,
    save_result,
)


def _result() -> Result:
    table = Table("Clips <b>", ["metric", "value", "clips"], [["accuracy", 0.75, 12], ["auc", None, 12]], "by group")
    figures = [
        Confusion("Confusion", ["calm", "violent"], [[5, 1], [2, 4]]),
        Curves("ROC", "false alarms", "recall", {"fused": [(0.0, 0.0), (0.2, 0.9), (1.0, 1.0)]}, diagonal=True),
        Gates("Gates", ["rgb", "audio"], ["calm", "violent"], [[0.6, 0.4], [0.3, 0.7]]),
        Timeline("clip", [0.5, 1.0], {"violent": [0.1, 0.9]}, {"rgb": [0.5, 0.4], "audio": [0.5, 0.6]}),
        Timeline("broken", [0.5], {"violent": [0.1]}, {"rgb": [1.0]}, {"camera broken": (0.25, 0.75)}),
        LevelCurves("Blur", "px", "accuracy", ["0", "4"], {"fused": [1.0, 0.5]}, {"fused": [(0.9, 1.0), (0.4, 0.6)]}),
        Examples("Examples", [Example("clip", "wrong", "calm", "violent", 0.9, {"rgb": 1.0}, "examples/a.png")]),
    ]
    return new_result("finetune", "Fine-tuning", "modalgate finetune x", [table], figures)


def test_a_loaded_result_equals_the_saved_one(tmp_path: Path) -> None:
    result = _result()
    path = save_result(result, tmp_path)
    assert path == tmp_path / "results" / "finetune.json"
    assert load_result(path) == result
    assert [entry.name for entry in path.parent.iterdir()] == ["finetune.json"]
    assert result.versions["torch"] == version("torch")
    assert result.created.endswith("+00:00")


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    gates = Gates("Gates", ["rgb"], ["calm"], [[math.nan]])
    table = Table("t", ["a", "b"], [[math.inf, math.nan]])
    path = save_result(new_result("probe", "Probe", "", [table], [gates]), tmp_path)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    loaded = load_result(path)
    assert loaded.tables[0].rows == [[None, None]]
    assert isinstance(loaded.figures[0], Gates)
    assert loaded.figures[0].weights == [[None]]


def test_a_second_save_replaces_the_first(tmp_path: Path) -> None:
    save_result(_result(), tmp_path)
    path = save_result(new_result("finetune", "Later", "", [], []), tmp_path)
    assert load_result(path).title == "Later"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"kind": "gates"', '"kind": "pie"'),
        lambda text: text.replace('"columns"', '"colums"'),
        lambda text: text.replace('"title": "Fine-tuning"', '"heading": "Fine-tuning"'),
        lambda text: text.replace('"diagonal": true', '"diagonal": true, "colour": 1'),
        lambda text: text.replace("0.75,", ""),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_loading_a_damaged_file_raises_with_its_name(tmp_path: Path, damage: Callable[[str], str]) -> None:
    path = save_result(_result(), tmp_path)
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    with pytest.raises(DataError, match=r"finetune\.json"):
        load_result(path)


def test_parts_of_different_length_raise() -> None:
    for build in (
        lambda: Table("t", ["a", "b"], [["x"]]),
        lambda: Confusion("c", ["a", "b"], [[1, 2]]),
        lambda: Confusion("c", ["a", "b"], [[1, 2], [3]]),
        lambda: Gates("g", ["rgb"], ["a", "b"], [[1.0]]),
        lambda: Gates("g", ["rgb"], ["a"], [[1.0, 0.0]]),
        lambda: Timeline("t", [0.0], {"a": [1.0, 2.0]}, {}),
    ):
        with pytest.raises(ValueError, match="expected"):
            build()
