"""Rows and tests of a study on cells with planted results."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from modalgate.tasks.fusion_study import study_summary as study
from modalgate.tasks.fusion_study.study_cell import Cell
from modalgate.tasks.fusion_study.study_summary import (
    References,
    RowCost,
    StudyRow,
    study_record,
    study_rows,
)
from modalgate.tasks.fusion_study.study_tables import study_figures, study_tables
from modalgate.tasks.metrics.classification import roc_auc, top_k_accuracy
from modalgate.tasks.metrics.significance import holm
from numpy.typing import NDArray

CLIPS = 60
COST = RowCost(10, 20, 0.5)


def auc(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return roc_auc(probabilities[:, 1], labels == 1)


def cell(
    row: str, right: Sequence[bool], seed: int = 0, fold: int = 0, validation: float = 0.5, every: int = 2
) -> Cell:
    """Predictions that are `right` or not. One clip in `every` is not of class 1."""
    labels = [int(number % every > 0) for number in range(len(right))]
    guesses = [label if good else 1 - label for label, good in zip(labels, right, strict=True)]
    probabilities = [[0.9, 0.1] if guess == 0 else [0.1, 0.9] for guess in guesses]
    accuracy = float(np.mean(right))
    return Cell(
        row,
        fold,
        seed,
        validation,
        probabilities,
        labels,
        [f"{fold}-{number}" for number in range(len(right))],
        {"rgb": 0.25, "audio": 0.75},
        0.8,
        0.1,
        {"rgb": 0.6, "audio": 0.4},
        {"rgb": {"0": accuracy, "1": accuracy / 2}, "audio": {"0": accuracy, "1": accuracy}},
        {"rgb": {"blur 2": accuracy / 3}, "audio": {}},
        0.55,
        0.5,
    )


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the draws is enough for the planted effects."""
    monkeypatch.setattr(study, "DRAWS", 200)


def rows_of(cells: list[Cell]) -> tuple[dict[str, StudyRow], References]:
    names = {cell.row for cell in cells}
    rows, references = study_rows(cells, ["rgb", "audio"], {}, dict.fromkeys(names, COST), top_k_accuracy)
    return {row.name: row for row in rows}, references


@pytest.fixture
def cells() -> list[Cell]:
    """The gate is right on 54 of 60 clips, rgb on 30. Audio is better on test but worse on validation."""
    generator = np.random.default_rng(0)
    made = []
    for seed in range(3):
        made += [
            cell("rgb", [number < 30 for number in range(CLIPS)], seed, validation=0.6),
            cell("audio", [number < 40 for number in range(CLIPS)], seed, validation=0.4),
            cell("softmax", [number < 54 for number in range(CLIPS)], seed),
            cell("coin", list(generator.random(CLIPS) < 0.5), seed),
        ]
    return made


def test_references_are_the_best_on_test_and_on_validation(cells: list[Cell]) -> None:
    rows, references = rows_of(cells)
    assert (references.test_best, references.validation_best) == ("audio", "rgb")
    assert rows["audio"].against_test_best is None
    assert rows["rgb"].against_validation_best is None
    assert [row.name for row in rows.values() if row.single] == ["rgb", "audio"]
    # If both references agree, so do both comparisons.
    agreeing = [replace(entry, validation=0.7) if entry.row == "audio" else entry for entry in cells]
    rows, references = rows_of(agreeing)
    assert references.test_best == references.validation_best == "audio"
    assert all(row.against_test_best == row.against_validation_best for row in rows.values())


def test_every_row_is_tested_separately() -> None:
    """Rows are right on nested sets of clips, so all n discordant clips favour one row and p is 2 / 2^n."""
    planted = {"rgb": 30, "audio": 40, "softmax": 54}
    made = [
        cell(row, [number < count for number in range(CLIPS)], seed, validation=0.6 if row == "rgb" else 0.4)
        for row, count in planted.items()
        for seed in range(3)
    ]
    rows, _ = rows_of(made)
    for name, strict, chosen in (("softmax", 14, 24), ("rgb", -10, None), ("audio", None, 10)):
        for found, clips in (
            (rows[name].against_test_best, strict),
            (rows[name].against_validation_best, chosen),
        ):
            if clips is None:
                assert found is None
                continue
            assert found is not None
            assert found.difference.value == pytest.approx(clips / CLIPS)
            assert found.difference.low <= clips / CLIPS <= found.difference.high
            # The test uses scores averaged over seeds: 60 clips, not 180.
            assert found.p == pytest.approx(2 / 2 ** abs(clips))
    # Holm over the two rows compared with a reference: the smaller p counts twice, the other once.
    strict = {name: rows[name].against_test_best for name in ("softmax", "rgb")}
    assert strict["softmax"] is not None
    assert strict["rgb"] is not None
    assert strict["softmax"].adjusted == pytest.approx(2 * 2 / 2**14)
    assert strict["rgb"].adjusted == pytest.approx(2 / 2**10)


def test_a_gain_over_the_validation_best_may_vanish_over_the_test_best() -> None:
    """Fusion is right where flow is, and better than rgb, which validation preferred."""
    right = [number < 50 for number in range(CLIPS)]
    made = [
        cell("rgb", [number < 30 for number in range(CLIPS)], validation=0.9),
        cell("audio", right, validation=0.8),
        cell("softmax", right),
    ]
    rows, references = rows_of(made)
    fused = rows["softmax"]
    assert fused.against_validation_best is not None
    assert fused.against_test_best is not None
    assert fused.against_validation_best.difference.value == pytest.approx(20 / CLIPS)
    assert fused.against_validation_best.adjusted < 1e-4
    assert fused.against_test_best.difference.value == 0
    assert fused.against_test_best.adjusted == 1
    headline = study_tables(list(rows.values()), references, "accuracy", "60 clips")[0]
    titles = [title for title in headline.columns if "against" in title]
    assert ["audio" in titles[0], "test" in titles[0]] == [True, True]
    assert ["rgb" in titles[1], "validation" in titles[1]] == [True, True]
    assert "stricter" in headline.note


def test_a_planted_gain_is_significant_and_a_coin_is_not(cells: list[Cell]) -> None:
    rows, _ = rows_of(cells)
    gate = rows["softmax"]
    assert gate.value.value == pytest.approx(0.9)
    assert gate.value.low < 0.9 < gate.value.high
    assert gate.against_validation_best is not None
    assert gate.against_validation_best.difference.low > 0.2
    found = [rows[name].against_validation_best for name in ("audio", "softmax", "coin")]
    assert [entry.adjusted for entry in found if entry] == holm([entry.p for entry in found if entry]).tolist()
    assert found[2] is not None
    assert found[2].adjusted > 0.05


@pytest.mark.parametrize(("every", "majority"), [(2, 0.5), (4, 0.75)])
def test_chance_is_the_largest_class_or_equal_scores(every: int, majority: float) -> None:
    made = [cell(row, [True] * CLIPS, every=every) for row in ("rgb", "audio", "softmax")]
    rows, references = rows_of(made)
    assert (references.chance, references.chance_accuracy) == (majority, majority)
    for table in study_tables(list(rows.values()), references, "accuracy", ""):
        if "chance" in table.columns:
            assert {row[table.columns.index("chance")] for row in table.rows} == {majority}
        else:
            assert table.title == "Gates and cost"
    rows, references = study_rows(made, ["rgb", "audio"], {}, dict.fromkeys(rows, COST), auc)
    assert (references.chance, references.chance_accuracy) == (0.5, majority)
    tables = {table.title: table for table in study_tables(rows, references, "auc", "")}
    for title, chance in (("Fusion mechanisms, auc", 0.5), ("Accuracy", majority), ("Missing modalities, auc", 0.5)):
        assert {row[tables[title].columns.index("chance")] for row in tables[title].rows} == {chance}


def test_the_record_has_both_comparisons_of_every_row(cells: list[Cell]) -> None:
    rows, references = rows_of(cells)
    record = json.loads(json.dumps(study_record(list(rows.values()), references)))
    assert list(record) == ["rgb", "audio", "softmax", "coin"]
    assert record["audio"]["against_test_best"] is None
    assert record["softmax"]["against_test_best"]["difference"]["value"] == pytest.approx(14 / CLIPS)
    assert {entry["test_best"] for entry in record.values()} == {"audio"}
    assert {entry["validation_best"] for entry in record.values()} == {"rgb"}
    assert record["coin"]["noise_area"] == rows["coin"].noise_area


def test_folds_are_pooled_before_scoring() -> None:
    parts = [cell(row, [good] * 10, fold=fold) for row, good in (("rgb", True), ("audio", False)) for fold in (0, 1)]
    rows, _ = rows_of(parts)
    assert rows["rgb"].value.value == 1
    assert rows["audio"].value.value == 0
    assert rows["audio"].value.high == 0


def test_the_noise_area_is_the_trapezoid_over_the_range_of_levels(cells: list[Cell]) -> None:
    rows, _ = rows_of(cells)
    assert rows["softmax"].noise_area == pytest.approx((0.9 * 0.75 + 0.9) / 2)


def test_tables_have_every_row_and_omit_unknown_values(cells: list[Cell]) -> None:
    cells = [replace(entry, shuffled=None, mean_gate=None) if entry.row == "coin" else entry for entry in cells]
    cells = [replace(entry, spread=0.012) if entry.row == "coin" else entry for entry in cells]
    rows, references = rows_of(cells)
    headline, gates, missing, rgb, audio, _ = study_tables(list(rows.values()), references, "accuracy", "60 clips")
    assert [row[0] for row in headline.rows] == ["rgb", "audio", "softmax", "coin"]
    assert headline.columns[-2:] == ["weights shuffled", "mean gate"]
    assert headline.rows[3][-2:] == [None, None]
    assert headline.rows[2][-2:] == [0.55, 0.5]
    # A single modality has no gate.
    place = gates.columns.index("std of weights")
    assert [row[place] for row in gates.rows] == [None, None, pytest.approx(0.1), "0.012, static"]
    assert gates.columns[1:3] == ["weight rgb", "weight audio"]
    assert [row[0] for row in missing.rows] == ["softmax", "coin"]
    assert rgb.columns == audio.columns == ["row", "0", "1", "area", "chance"]
    assert rgb.rows[2] == ["softmax", *(pytest.approx(value) for value in (0.9, 0.45, 0.675, 0.5))]
    assert audio.rows[2] == ["softmax", *[pytest.approx(0.9)] * 3, 0.5]
    # A single modality is scored under its own noise only.
    alone = replace(rows["rgb"], noise={"rgb": rows["rgb"].noise["rgb"]})
    pages = study_figures([alone, rows["softmax"]], "accuracy")
    assert [page.title for page in pages] == ["Noise on rgb", "Noise on audio"]
    assert [list(page.series) for page in pages] == [["rgb", "softmax"], ["softmax"]]
    assert pages[0].series["softmax"] == [(0.0, pytest.approx(0.9)), (1.0, pytest.approx(0.45))]


def test_another_metric_adds_a_table_of_accuracy(cells: list[Cell]) -> None:
    rows, references = study_rows(cells, ["rgb", "audio"], {}, dict.fromkeys({cell.row for cell in cells}, COST), auc)
    tables = study_tables(rows, references, "auc", "60 clips")
    assert tables[0].rows[2][1] == pytest.approx(0.9, abs=0.01)  # two distinct scores: about the balanced accuracy
    assert tables[1].title == "Accuracy"
    assert [row[:2] for row in tables[1].rows[:3]] == [
        [name, pytest.approx(value)] for name, value in (("rgb", 0.5), ("audio", 40 / 60), ("softmax", 0.9))
    ]
    assert tables[1].rows[2][2] <= 0.9 <= tables[1].rows[2][3]


def test_auc_is_tested_as_auc_and_averaged_over_folds() -> None:
    """Scores that are far apart between folds: the pooled AUC of every row is lower than the mean over folds."""
    generator = np.random.default_rng(0)
    made = []
    for fold in range(2):
        labels = np.arange(30) % 2
        for row, noise in (("rgb", 1.0), ("audio", 1.2), ("softmax", 0.1)):
            scores = np.clip(0.2 + 0.1 * (labels + noise * generator.normal(size=30)) + 0.4 * fold, 0.01, 0.99)
            entry = cell(row, [True] * 30, fold=fold)
            made.append(
                replace(
                    entry,
                    probabilities=np.stack([1 - scores, scores], axis=1).tolist(),
                    labels=labels.tolist(),
                    noise={"rgb": {"0": roc_auc(scores, labels)}},
                )
            )
    rows, references = study_rows(made, ["rgb", "audio"], {}, dict.fromkeys(("rgb", "audio", "softmax"), COST), auc)
    for row in rows:
        # The clean level of the noise curve uses the same estimator as the headline.
        assert row.value.value == pytest.approx(row.noise["rgb"]["0"])
    gate = rows[2].against_test_best
    assert gate is not None
    assert gate.p == gate.difference.p < 0.02
    entries = [row.against_test_best for row in rows if row.against_test_best is not None]
    assert [entry.adjusted for entry in entries] == holm([entry.p for entry in entries]).tolist()
    note = study_tables(rows, references, "auc", "60 clips")[0].note
    assert "AUC: mean over 2 folds" in note
    assert "paired bootstrap over groups" in note
    assert "McNemar" not in note


def test_few_groups_are_tested_by_sign_flips_and_clips_without_a_group_are_their_own(cells: list[Cell]) -> None:
    subjects = {f"0-{number}": f"subject-{number % 4}" for number in range(CLIPS)}
    names = {cell.row for cell in cells}
    rows, references = study_rows(cells, ["rgb", "audio"], subjects, dict.fromkeys(names, COST), top_k_accuracy)
    for row in rows:
        for found in (row.against_test_best, row.against_validation_best):
            assert found is None or found.p >= 2 / 2**4
    assert "sign flips over the 4 groups" in references.how
    assert "of four groups about 83 %" in references.how
    unknown = dict.fromkeys(subjects, "")
    rows, references = study_rows(cells, ["rgb", "audio"], unknown, dict.fromkeys(names, COST), top_k_accuracy)
    assert "McNemar" in references.how
    assert rows == study_rows(cells, ["rgb", "audio"], {}, dict.fromkeys(names, COST), top_k_accuracy)[0]


def test_controls_of_unequal_folds_count_every_clip_of_an_accuracy_equally() -> None:
    made = []
    for row in ("rgb", "audio", "softmax"):
        for fold, count, right in ((0, 30, True), (1, 10, False)):
            entry = cell(row, [right] * count, fold=fold)
            known = {"rgb": {"0": float(right)}}
            entry = replace(entry, shuffled=float(right), mean_gate=float(right), oracle_noise=known)
            made.append(replace(entry, oracle_held_out={"rgb": {"blur 2": float(right)}}))
    rows, references = rows_of(made)
    fused = rows["softmax"]
    assert fused.oracle_noise == {"rgb": {"0": 0.75}}
    assert study_record([fused], references)["softmax"]["oracle_held_out"] == {"rgb": {"blur 2": 0.75}}
    assert fused.value.value == fused.shuffled == fused.mean_gate == fused.noise["rgb"]["0"] == 0.75
