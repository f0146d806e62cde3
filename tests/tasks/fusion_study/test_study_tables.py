"""Tables of a study: corruptions that no training contains."""

import pytest
from modalgate.tasks.fusion_study.study_summary import References, RowCost, StudyRow
from modalgate.tasks.fusion_study.study_tables import study_tables
from modalgate.tasks.metrics.significance import Difference


def row(name: str, held_out: dict[str, dict[str, float]]) -> StudyRow:
    value = Difference(0.5, 0.4, 0.6, 0.1)
    noise, cost = {"rgb": {"0": 0.5}}, RowCost(1, 2, 3.0)
    return StudyRow(
        *(name, name == "rgb", value, value, 0.5, None, None, None, None, {"rgb": 1.0}, None, 0.1, {}, noise),
        held_out=held_out,
        cost=cost,
    )


def test_corruptions_held_out_of_training_have_a_table() -> None:
    rows = [
        row("rgb", {"rgb": {"blur 2": 0.3}}),
        row("gate", {"rgb": {"blur 2": 0.4}, "inertial": {"axes 0.4": 0.45}}),
    ]
    tables = study_tables(rows, References("rgb", "rgb", 0.25, 0.25, "sign flips"), "accuracy", "note")
    (table,) = [table for table in tables if table.title.startswith("Corruptions held out of training")]
    assert table.columns == ["row", "rgb: blur 2", "inertial: axes 0.4", "chance"]
    assert table.rows == [["rgb", 0.3, None, 0.25], ["gate", 0.4, 0.45, 0.25]]


@pytest.mark.parametrize("held_out", [{}, {"rgb": {}}])
def test_without_such_corruptions_there_is_none(held_out: dict[str, dict[str, float]]) -> None:
    tables = study_tables(
        [row("rgb", held_out)], References("rgb", "rgb", 0.25, 0.25, "sign flips"), "accuracy", "note"
    )
    assert not any("held out of training" in table.title for table in tables)
