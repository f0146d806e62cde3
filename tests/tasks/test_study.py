"""A study's rows and tests on cells whose outcome was planted."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from modalgate.tasks.metrics import roc_auc, top_k_accuracy
from modalgate.tasks.statistics import holm, mcnemar
from modalgate.tasks.study import RowCost, StudyRow, study_figures, study_rows, study_tables
from modalgate.tasks.study_cell import Cell
from numpy.typing import NDArray

CLIPS = 60
COST = RowCost(10, 20, 0.5)


def cell(row: str, right: Sequence[bool], seed: int = 0, fold: int = 0, validation: float = 0.5) -> Cell:
    labels = [number % 2 for number in range(len(right))]
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
        0.55,
    )


def rows_of(cells: list[Cell]) -> tuple[dict[str, StudyRow], str]:
    names = {cell.row for cell in cells}
    rows, best = study_rows(cells, ["rgb", "audio"], {}, dict.fromkeys(names, COST), top_k_accuracy)
    return {row.name: row for row in rows}, best


@pytest.fixture
def cells() -> list[Cell]:
    """The gate is right on 54 of 60 clips, rgb on 30 of them; audio is better on test but worse on validation."""
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


def test_the_best_single_modality_is_chosen_on_validation(cells: list[Cell]) -> None:
    rows, best = rows_of(cells)
    assert best == "rgb"
    assert rows["audio"].against is None
    assert rows["audio"].adjusted is None
    assert rows["rgb"].single


def test_a_planted_gain_is_found_and_a_coin_is_not(cells: list[Cell]) -> None:
    rows, _ = rows_of(cells)
    gate = rows["softmax"]
    assert gate.value.value == pytest.approx(0.9)
    assert gate.value.low < 0.9 < gate.value.high
    assert gate.against is not None
    assert gate.against.value == pytest.approx(0.4)
    assert gate.against.low > 0.2
    # The test is on scores averaged over seeds: 60 clips, not 180.
    right = {name: np.arange(CLIPS) < count for name, count in (("rgb", 30), ("softmax", 54))}
    assert gate.p == mcnemar(right["softmax"], right["rgb"])
    coin = rows["coin"]
    assert coin.p is not None
    assert gate.adjusted == pytest.approx(holm([gate.p, coin.p])[0])
    assert coin.adjusted is not None
    assert coin.adjusted > 0.05


def test_folds_are_pooled_before_they_are_judged() -> None:
    parts = [cell(row, [good] * 10, fold=fold) for row, good in (("rgb", True), ("audio", False)) for fold in (0, 1)]
    rows, _ = rows_of(parts)
    assert rows["rgb"].value.value == 1
    assert rows["audio"].value.value == 0
    assert rows["audio"].value.high == 0


def test_the_noise_area_is_the_trapezoid_relative_to_the_levels(cells: list[Cell]) -> None:
    rows, _ = rows_of(cells)
    assert rows["softmax"].noise_area == pytest.approx((0.9 * 0.75 + 0.9) / 2)


def test_tables_name_every_row_and_leave_out_what_is_not_known(cells: list[Cell]) -> None:
    cells = [replace(entry, shuffled=None) if entry.row == "coin" else entry for entry in cells]
    rows, best = rows_of(cells)
    headline, gates, missing, rgb, audio = study_tables(list(rows.values()), best, "accuracy", "60 clips")
    assert [row[0] for row in headline.rows] == ["rgb", "audio", "softmax", "coin"]
    assert headline.rows[3][-1] is None
    assert headline.rows[2][-1] == 0.55
    assert "against rgb" in headline.columns
    assert gates.columns[1:3] == ["weight rgb", "weight audio"]
    assert [row[0] for row in missing.rows] == ["softmax", "coin"]
    assert rgb.columns == audio.columns == ["row", "0", "1", "area"]
    assert rgb.rows[2] == ["softmax", *(pytest.approx(value) for value in (0.9, 0.45, 0.675))]
    assert audio.rows[2] == ["softmax", *[pytest.approx(0.9)] * 3]
    # A single modality is judged by its own noise alone.
    alone = replace(rows["rgb"], noise={"rgb": rows["rgb"].noise["rgb"]})
    pages = study_figures([alone, rows["softmax"]], "accuracy")
    assert [page.title for page in pages] == ["Noise on rgb", "Noise on audio"]
    assert [list(page.series) for page in pages] == [["rgb", "softmax"], ["softmax"]]
    assert pages[0].series["softmax"] == [(0.0, pytest.approx(0.9)), (1.0, pytest.approx(0.45))]


def test_beside_another_metric_the_accuracy_has_a_table_of_its_own(cells: list[Cell]) -> None:
    def auc(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
        return roc_auc(probabilities[:, 1], labels == 1)

    rows, best = study_rows(cells, ["rgb", "audio"], {}, dict.fromkeys({cell.row for cell in cells}, COST), auc)
    tables = study_tables(rows, best, "auc", "60 clips")
    assert tables[0].rows[2][1] == pytest.approx(0.9, abs=0.01)  # two scores, so about the balanced accuracy
    assert tables[1].title == "Accuracy"
    assert [row[:2] for row in tables[1].rows[:3]] == [
        [name, pytest.approx(value)] for name, value in (("rgb", 0.5), ("audio", 40 / 60), ("softmax", 0.9))
    ]
    assert tables[1].rows[2][2] <= 0.9 <= tables[1].rows[2][3]
