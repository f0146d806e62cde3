"""Tables of a probe from rows with known values."""

import pytest
from modalgate.tasks.probes.label_curve import DRAWS, CurveRow
from modalgate.tasks.probes.probe_features import ProbeRow
from modalgate.tasks.probes.probe_tables import (
    class_retrieval_table,
    cross_modal_table,
    label_curve_figure,
    label_curve_table,
    probe_table,
)
from modalgate.tasks.probes.retrieval_rows import RetrievalRow
from modalgate.tasks.records import Table

RECALL = {1: 0.25, 5: 0.5, 10: 0.75, 20: 1.0}


def rows(table: Table) -> list[dict[str, object]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_each_feature_has_its_untrained_scores() -> None:
    trained = ProbeRow("fused", 0.8, 0.7, 0.9, 0.6, None, 40, 0.25)
    control = ProbeRow("fused", 0.3, 0.2, 0.4, 0.25, None, 40, 0.25)
    (row,) = rows(probe_table([trained], [control], "note"))
    assert (row["linear"], row["untrained linear"]) == (0.8, 0.3)
    assert (row["kNN"], row["untrained kNN"]) == (0.6, 0.25)
    with pytest.raises(ValueError, match="zip"):
        probe_table([trained], [], "note")


def test_retrieval_notes_give_the_gallery_size() -> None:
    same = RetrievalRow("rgb", "rgb", RECALL, 3.0, 100.0, 0.1, 20)
    other = RetrievalRow("fused", "fused", RECALL, 3.0, 120.0, 0.1, 20)
    table = class_retrieval_table([same, other])
    assert (rows(table)[0]["R@1"], rows(table)[0]["R@20"], rows(table)[0]["chance R@1"]) == (0.25, 1.0, 0.1)
    assert "100 to 120 training clips" in table.note
    assert "among no training" in class_retrieval_table([RetrievalRow("rgb", "rgb", RECALL, 0.0, 0.0, 0.0, 0)]).note
    across = cross_modal_table([RetrievalRow("rgb", "audio", RECALL, 3.0, 20.0, 0.05, 20)])
    assert rows(across)[0] | {"from > to": "rgb > audio", "median rank": 3.0} == rows(across)[0]
    assert "among 20 test clips" in across.note


def test_label_curve_by_share_and_by_shots() -> None:
    every = CurveRow(
        "rgb", [0.1, 1.0], [0.4, 0.8], [0.05, 0.0], [12.0, 120.0], 5, {1: (0.3, 0.02), 5: (0.6, 0.01)}, 0.2
    )
    one = CurveRow("audio", [0.1, 1.0], [0.2, 0.3], [0.05, 0.0], [12.0, 120.0], 5, {1: (0.25, 0.02)}, 0.2)
    table = label_curve_table([every, one])
    assert table.columns == ["feature", "10%", "100%", "chance", "1 shot", "5 shot"]
    assert table.rows == [["rgb", 0.4, 0.8, 0.2, 0.3, 0.6], ["audio", 0.2, 0.3, 0.2, 0.25, None]]
    assert all(fact in table.note for fact in ("12, 120 clips", f"{DRAWS} draws", "episodes of 5 classes"))
    assert label_curve_figure([every]).series == {"rgb": [(0.1, 0.4), (1.0, 0.8)]}
