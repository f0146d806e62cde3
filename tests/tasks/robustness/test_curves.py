"""Curves from planted predictions: areas, intervals, best single modality and correlations."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.errors import DataError
from modalgate.tasks.metrics.classification import roc_auc
from modalgate.tasks.robustness.conditions import (
    ALL,
    Condition,
    Sweep,
    join_sweeps,
    load_sweep,
    save_sweep,
    subsets,
)
from modalgate.tasks.robustness.corruptions import AXES
from modalgate.tasks.robustness.curves import area_under, curve_keys, measure_robustness
from modalgate.tasks.robustness.robustness_tables import robustness_figures, robustness_tables

CLIPS, NAMES = 40, ("rgb", "audio")
BLUR = AXES["blur"].levels
# Number of correct clips of forty at each level, fused and with the blurred picture alone.
FUSED, ALONE = (36, 36, 30, 24, 20), (32, 28, 20, 10, 0)


def planted(right: int) -> np.ndarray:
    """Predictions of which the first `right` are correct."""
    labels = np.arange(CLIPS) % 2
    guess = np.where(np.arange(CLIPS) < right, labels, 1 - labels)
    return np.where(np.arange(2) == guess[:, None], 0.8, 0.2).astype(np.float32)


@pytest.fixture
def sweep() -> Sweep:
    """Sound alone is correct in 26 clips and missing in the last ten. The picture's weight falls with its blur."""
    rows: list[tuple[Condition, int, float, int]] = [
        (Condition("missing", "rgb"), 32, 1.0, CLIPS),
        (Condition("missing", "audio"), 26, 0.0, CLIPS - 10),
        (Condition("missing", "rgb+audio"), 36, 0.6, CLIPS),
    ]
    for place, level in enumerate(BLUR):
        rows.append((Condition("blur", "rgb", level), FUSED[place], 0.6 - 0.1 * place, CLIPS))
        rows.append((Condition("blur", "rgb", level, alone=True), ALONE[place], 1.0, CLIPS))
    for level in AXES["noise"].levels:
        rows.append((Condition("noise", ALL, level), 30, 0.6, CLIPS))
        rows.append((Condition("noise", "rgb", level, alone=True), 31, 1.0, CLIPS))
        rows.append((Condition("noise", "audio", level, alone=True), 20, 0.0, CLIPS))
    # No clip is measured at half a second.
    for level in AXES["desync"].levels:
        count = 0 if abs(level) > 0.4 else CLIPS
        rows += [(Condition("desync", "rgb", level, alone=alone), 20, 0.5, count) for alone in (False, True)]
        rows.append((Condition("desync", "audio", level, alone=True), 24, 0.5, CLIPS))
    weights = np.array([[[rgb, 1 - rgb]] * CLIPS for _, _, rgb, _ in rows], np.float32)
    present = np.ones((CLIPS, 2), bool)
    present[-10:, 1] = False
    return Sweep(
        ["calm", "fight"],
        list(NAMES),
        [condition for condition, *_ in rows],
        np.stack([planted(right) for _, right, _, _ in rows]),
        weights,
        np.stack([np.arange(CLIPS) < count for *_, count in rows]),
        present,
        np.arange(CLIPS) % 2,
        [f"clip-{number}" for number in range(CLIPS)],
    )


def naive_area(values: list[float]) -> float:
    """Mean of the means of neighbouring values."""
    return sum((first + second) / 2 for first, second in pairwise(values)) / (len(values) - 1)


def test_the_area_is_the_mean_height() -> None:
    generator = np.random.default_rng(0)
    for count in range(2, 8):
        values = generator.random(count).tolist()
        assert area_under(values) == pytest.approx(naive_area(values))
        assert min(values) <= area_under(values) <= max(values)
    assert area_under([0.7] * 5, [0, 0.5, 1, 2, 4]) == pytest.approx(0.7)
    # With uneven places, an interval counts by its length.
    assert area_under([1.0, 0.0, 0.0], [0, 1, 4]) == pytest.approx(0.5 / 4)
    assert area_under([np.nan, 1.0, 0.5, np.nan]) == pytest.approx(0.75)
    assert np.isnan(area_under([1.0, np.nan]))


def test_curves_equal_the_planted_values(sweep: Sweep) -> None:
    found = measure_robustness(sweep, sweep.keys, draws=200)
    assert curve_keys(sweep) == [("blur", "rgb"), ("desync", "rgb"), ("noise", ALL)]
    blur, late, together = found.curves
    accuracy = [right / CLIPS for right in FUSED]
    assert blur.accuracy == pytest.approx(accuracy)
    assert blur.area == pytest.approx(naive_area(accuracy))
    assert blur.area_low < blur.area < blur.area_high
    assert all(low <= value <= high for low, value, high in zip(blur.low, accuracy, blur.high, strict=True))
    assert blur.clean == pytest.approx(0.9)
    assert blur.kept == pytest.approx(naive_area(accuracy) / 0.9)
    assert blur.worst == (pytest.approx(0.5), 4.0)
    # The picture is the best single modality for weak blur, the sound for strong blur.
    assert blur.single == pytest.approx([32 / 40, 28 / 40, 26 / 40, 26 / 40, 26 / 40])
    assert blur.correlation == pytest.approx(-1)
    assert blur.weights["rgb"] == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2])
    # Correct predictions of both classes outrank the wrong ones, so the AUC equals the accuracy.
    assert blur.auc == pytest.approx(accuracy)
    assert together.area == pytest.approx(0.75)
    assert together.single == pytest.approx([31 / 40] * 5)
    assert together.correlation is None
    assert late.correlation is None
    assert late.clips == [0, 0, 40, 40, 40, 40, 40, 0, 0]
    assert np.isnan(late.accuracy[0])
    assert late.area == pytest.approx(0.5)
    assert late.left_out == 40
    assert late.single[4] == pytest.approx(24 / 40)


def test_subsets_are_measured_on_clips_with_one_of_them(sweep: Sweep) -> None:
    assert subsets(("a", "b", "c")) == [
        ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")
    ]  # fmt: skip
    picture, sound, both = measure_robustness(sweep, sweep.keys, draws=50).missing
    assert (sound.accuracy, sound.clips) == (pytest.approx(26 / 30), 30)
    assert (picture.accuracy, both.accuracy) == (pytest.approx(0.8), pytest.approx(0.9))
    assert both.weights == pytest.approx({"rgb": 0.6, "audio": 0.4})


def test_curves_without_measured_clips_are_named(sweep: Sweep) -> None:
    for number, condition in enumerate(sweep.conditions):
        if condition.axis == "blur":
            sweep.valid[number] = False
    found = measure_robustness(sweep, sweep.keys, draws=20)
    assert [(curve.axis, curve.modality) for curve in found.curves] == [("desync", "rgb"), ("noise", ALL)]
    assert found.unmeasured == [("blur", "rgb")]
    assert "No clip can be measured for rgb blur" in robustness_tables(found, "40 clips", {})[0].note


def test_groups_widen_the_interval(sweep: Sweep) -> None:
    # Clips of a group have correlated errors: ten groups of four hold less information than forty clips.
    groups = [f"group-{number // 4}" for number in range(CLIPS)]
    alone, together = (measure_robustness(sweep, units, draws=400).curves[0] for units in (sweep.keys, groups))
    assert together.area_high - together.area_low > 1.3 * (alone.area_high - alone.area_low)


def test_tables_and_figures_agree(sweep: Sweep) -> None:
    found = measure_robustness(sweep, sweep.keys, draws=50)
    tables = robustness_tables(found, "40 clips", {"blur": "no", "missing": "yes"})
    assert [table.title for table in tables] == [
        "Missing modalities",
        "One modality corrupted",
        "All modalities corrupted",
        "Every level",
    ]
    row = dict(zip(tables[1].columns, tables[1].rows[0], strict=True))
    assert (row["corrupted"], row["by"], row["at"], row["in training"]) == ("rgb", "Gaussian blur", "4 px", "no")
    assert row["over single"] == pytest.approx(found.curves[0].area / found.curves[0].single_area)
    late = dict(zip(tables[1].columns, tables[1].rows[1], strict=True))
    assert late["left out"] == "up to 40 too short or of one modality"
    assert late["in training"] == "unknown"
    assert "in training: yes" in tables[0].note
    assert tables[3].folded
    assert len(tables[3].rows) == 5 + 9 + 5
    figures = robustness_figures(found)
    assert [figure.title for figure in figures] == [curve.title for curve in found.curves]
    assert figures[0].levels == ["0", "0.5", "1", "2", "4"]
    assert figures[0].below["audio"] == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8])


def test_loaded_sweeps_equal_the_saved_ones_and_folds_are_pooled(sweep: Sweep, tmp_path: Path) -> None:
    path = tmp_path / "results" / "robustness.safetensors"
    save_sweep(sweep, sweep.keys, path)
    again, units = load_sweep(path)
    assert units == sweep.keys
    assert again.conditions == sweep.conditions
    np.testing.assert_array_equal(again.probabilities, sweep.probabilities)
    parts = [sweep.rows(range(15)), sweep.rows(range(15, CLIPS))]
    joined = join_sweeps(parts)
    assert joined.keys == sweep.keys
    np.testing.assert_array_equal(joined.valid, sweep.valid)
    assert joined.folds == ["0"] * 15 + ["1"] * (CLIPS - 15)
    save_sweep(joined, sweep.keys, path)
    assert load_sweep(path)[0].folds == joined.folds
    whole, pooled = (measure_robustness(one, sweep.keys, draws=20) for one in (sweep, joined))
    assert replace(whole.curves[0], auc=None) == replace(pooled.curves[0], auc=None)
    rows = [sweep.conditions.index(Condition("blur", "rgb", level)) for level in BLUR]
    each = [[roc_auc(part.probabilities[row, :, 1], part.labels) for row in rows] for part in parts]
    assert pooled.curves[0].auc == pytest.approx(np.mean(each, axis=0))
    # Fifteen clips have sound in the first part, and fifteen of twenty-five in the second.
    heard = sweep.conditions.index(Condition("missing", "audio"))
    expected = [
        roc_auc(part.probabilities[heard, part.valid[heard], 1], part.labels[part.valid[heard]]) for part in parts
    ]
    assert pooled.missing[1].auc == pytest.approx(np.mean(expected))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"robustness\.safetensors"):
        load_sweep(path)
