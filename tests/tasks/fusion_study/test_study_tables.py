"""Tables of a study: corruptions that no training contains."""

from dataclasses import replace

import pytest
from modalgate.tasks.fusion_study.study_summary import References, RowCost, StudyRow
from modalgate.tasks.fusion_study.study_tables import study_tables
from modalgate.tasks.metrics.significance import Difference

REFERENCES = References("rgb", "rgb", 0.25, 0.25, "sign flips")


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
    tables = study_tables(rows, REFERENCES, "accuracy", "note")
    (table,) = [table for table in tables if table.title.startswith("Corruptions held out of training")]
    assert table.columns == ["row", "rgb: blur 2", "inertial: axes 0.4", "chance"]
    assert table.rows == [["rgb", 0.3, None, 0.25], ["gate", 0.4, 0.45, 0.25]]


@pytest.mark.parametrize("held_out", [{}, {"rgb": {}}])
def test_without_such_corruptions_there_is_none(held_out: dict[str, dict[str, float]]) -> None:
    tables = study_tables([row("rgb", held_out)], REFERENCES, "accuracy", "note")
    assert not any("held out of training" in table.title for table in tables)


def test_the_oracle_stands_beside_each_noisy_condition() -> None:
    rows = [
        row("rgb", {"rgb": {"blur 2": 0.3}}),
        replace(
            row("gate", {"rgb": {"blur 2": 0.4}}),
            noise={"rgb": {"0": 0.5, "1": 0.3}},
            oracle_noise={"rgb": {"0": 0.6, "1": 0.4}},
            oracle_held_out={"rgb": {"blur 2": 0.45}},
        ),
    ]
    rows[0] = replace(rows[0], noise={"rgb": {"0": 0.5, "1": 0.2}})
    tables = study_tables(rows, REFERENCES, "accuracy", "note")
    noise, unseen = tables[-2:]
    assert noise.columns == ["row", "0", "oracle, 0", "1", "oracle, 1", "area", "oracle, area", "chance"]
    # A row that joins features has no oracle.
    assert noise.rows[0] == ["rgb", 0.5, None, 0.2, None, pytest.approx(0.35), None, 0.25]
    assert noise.rows[1] == ["gate", 0.5, 0.6, 0.3, 0.4, pytest.approx(0.4), pytest.approx(0.5), 0.25]
    assert unseen.columns == ["row", "rgb: blur 2", "oracle, rgb: blur 2", "chance"]
    assert unseen.rows == [["rgb", 0.3, None, 0.25], ["gate", 0.4, 0.45, 0.25]]
    for table in (noise, unseen):
        assert "upper reference" in table.note


def test_a_row_of_one_modality_has_no_weights_and_no_subsets() -> None:
    """Rows are not compared with the control of size as a single modality, although it uses one alone."""
    fused = replace(row("gate", {}), weights={"rgb": 0.5, "audio": 0.5}, subsets={"rgb": 0.4, "audio": 0.3})
    tables = study_tables([row("rgb", {}), row("large", {}), fused], REFERENCES, "accuracy", "note")
    gates, missing = tables[1:3]
    place = gates.columns.index("std of weights")
    assert [entry[place] for entry in gates.rows] == [None, None, 0.1]
    assert missing.rows == [["gate", 0.4, 0.3, 0.25]]
