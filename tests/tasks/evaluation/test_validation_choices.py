"""Threshold and temperature chosen on validation clips, for scores with a known answer."""

import math
from typing import Any

import numpy as np
import pytest
from modalgate.tasks.evaluation.scores import Scores, join_folds, join_scores
from modalgate.tasks.evaluation.validation_choices import calibrate, chosen_rows
from modalgate.tasks.metrics.calibration import apply_temperature, expected_calibration_error
from modalgate.tasks.records import Cell


def figures(
    parts: list[tuple[Scores, Scores]], classes: list[str], positive: int | None, seconds: np.ndarray
) -> dict[str, tuple[Cell, Cell, Cell]]:
    """(value, low, high) by name."""
    units = [str(number) for number in range(len(seconds))]
    return {
        str(name): (value, low, high)
        for name, value, low, high in chosen_rows(parts, classes, positive, seconds, units)
    }


def values(*arguments: Any) -> dict[str, Cell]:
    return {name: value for name, (value, _, _) in figures(*arguments).items()}


def scores(violent: list[float], labels: list[int]) -> Scores:
    rows = np.array([[1 - value, value] for value in violent])
    return Scores(rows, np.ones((len(labels), 1)), np.array(labels), [str(n) for n in range(len(labels))])


def test_each_split_takes_its_threshold_from_its_validation_clips() -> None:
    low = (scores([0.30, 0.10, 0.25], [1, 0, 0]), scores([0.20, 0.15], [1, 0]))
    high = (scores([0.90, 0.60], [1, 0]), scores([0.80, 0.70], [1, 0]))
    rows = values([low, high], ["calm", "fight"], 1, np.full(5, 360.0))
    assert rows["threshold of best F1"] == pytest.approx((0.2 + 0.8) / 2)
    # The thresholds are .2 and .8: .30 and .90 are hits, .25 is a false alarm, nothing is missed.
    assert rows["f1 at it"] == pytest.approx(0.8)
    assert rows["accuracy at it"] == pytest.approx(0.8)
    assert rows["recall_calm at it"] == pytest.approx(2 / 3)
    assert rows["recall_fight at it"] == 1.0
    # Each split finds its violent clip without a false alarm. One threshold for both would be .30, below .60.
    assert rows["false alarms per hour at recall 0.9, mean over 2 folds"] == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_false_alarms_are_counted_in_each_fold_whatever_the_scale_of_its_scores(pooled: bool) -> None:
    """The same ranking twice, at a tenth of the scale; the final model gets its folds as one part."""
    truth, told = [1, 1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.7, 0.5, 0.6, 0.4, 0.3, 0.2]
    wide, narrow = scores(told, truth), scores([value / 10 for value in told], truth)
    parts = [(wide, wide), (narrow, narrow)]
    if pooled:
        both = join_folds(["wide", "narrow"], [wide, narrow])
        parts = [(both, both)]
    found = figures(parts, ["calm", "fight"], 1, np.full(16, 900.0))
    # A recall of .9 of four clips takes all four. One of the four calm clips, an hour in all, is then an alarm.
    value, low, high = found["false alarms per hour at recall 0.9, mean over 2 folds"]
    assert value == pytest.approx(1.0)
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert 0 <= low < 1 < high
    (alone,) = [figures([part], ["calm", "fight"], 1, np.full(8, 900.0)) for part in [(wide, wide)]]
    assert alone["false alarms per hour at recall 0.9"][0] == pytest.approx(1.0)


def test_the_temperature_corrects_overconfident_scores() -> None:
    generator = np.random.default_rng(0)
    honest = generator.uniform(0.05, 0.95, 4000)
    labels = (generator.uniform(size=4000) < honest).astype(int)
    bold = apply_temperature(np.stack([1 - honest, honest], axis=1), 1 / 3)[:, 1]
    half = slice(None, 2000), slice(2000, None)
    test, held = (scores(bold[part].tolist(), labels[part].tolist()) for part in half)
    rows = values([(test, held)], ["calm", "fight"], None, np.ones(2000))
    assert rows["temperature"] == pytest.approx(3.0, rel=0.15)
    assert rows["calibration error"] == pytest.approx(expected_calibration_error(test.probabilities, test.labels))
    tempered, plain = rows["calibration error, tempered"], rows["calibration error"]
    assert isinstance(tempered, float)
    assert isinstance(plain, float)
    assert tempered < 0.05 < plain
    assert "threshold of best F1" not in rows


def test_choices_from_pooled_folds_equal_a_naive_search() -> None:
    """The planted scores lie on a grid that can be searched."""
    generator = np.random.default_rng(1)
    labels = np.tile([0, 1], 60)
    told = np.clip(np.round(0.2 + 0.5 * labels + generator.normal(0, 0.2, 120), 2), 0.01, 0.99)
    folds = [scores(told[fold::3].tolist(), labels[fold::3].tolist()) for fold in range(3)]
    found = calibrate(join_scores(folds), ["calm", "fight"], 1)
    pairs = [(value, label) for fold in range(3) for value, label in zip(told[fold::3], labels[fold::3], strict=True)]

    def f1(threshold: float) -> float:
        hits = sum(value >= threshold and label == 1 for value, label in pairs)
        return 2 * hits / (sum(value >= threshold for value, _ in pairs) + 60)

    best = max(f1(value) for value, _ in pairs)
    assert found.thresholds == {"fight": max(value for value, _ in pairs if f1(value) == pytest.approx(best))}

    def cross_entropy(temperature: float) -> float:
        total = 0.0
        for value, label in pairs:
            yes, no = value ** (1 / temperature), (1 - value) ** (1 / temperature)
            truth = (121 / 122) if label else (1 / 122)
            total -= truth * math.log(yes / (yes + no)) + (1 - truth) * math.log(no / (yes + no))
        return total

    grid = [math.exp(step / 500) for step in range(-1500, 1500)]
    assert found.temperature == pytest.approx(min(grid, key=cross_entropy), rel=0.005)


def test_no_threshold_without_positive_clips_or_for_actions() -> None:
    calm = scores([0.3, 0.2], [0, 0])
    assert calibrate(calm, ["calm", "fight"], 1).thresholds == {}
    assert calibrate(scores([0.3, 0.8], [0, 1]), ["calm", "fight"], None).thresholds == {}
    rows = values([(calm, calm)], ["calm", "fight"], 1, np.ones(2))
    assert set(rows) == {"temperature", "calibration error", "calibration error, tempered"}


def test_several_classes_per_clip_have_thresholds_and_no_temperature() -> None:
    held = Scores(np.array([[0.3, 0.9], [0.2, 0.4]]), np.ones((2, 1)), np.array([[1, 0], [0, 0]]), ["a", "b"])
    found = calibrate(held, ["fight", "shout"], None)
    assert (found.temperature, found.thresholds) == (None, {"fight": 0.3, "shout": 0.5})
