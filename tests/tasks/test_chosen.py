"""Threshold and temperature chosen on validation clips, on scores with a known answer."""

import numpy as np
import pytest
from modalgate.tasks.calibration import apply_temperature, expected_calibration_error
from modalgate.tasks.chosen import chosen_rows
from modalgate.tasks.scoring import Scores


def scores(violent: list[float], labels: list[int]) -> Scores:
    rows = np.array([[1 - value, value] for value in violent])
    return Scores(rows, np.ones((len(labels), 1)), np.array(labels), [str(n) for n in range(len(labels))])


def test_the_threshold_comes_from_validation_and_every_split_has_its_own() -> None:
    low = (scores([0.30, 0.10, 0.25], [1, 0, 0]), scores([0.20, 0.15], [1, 0]))
    high = (scores([0.90, 0.60], [1, 0]), scores([0.80, 0.70], [1, 0]))
    rows = dict(map(tuple, chosen_rows([low, high], 1, np.full(5, 360.0))))
    assert rows["threshold of best F1"] == pytest.approx((0.2 + 0.8) / 2)
    # .30 and .90 pass their thresholds of .2 and .8 rightly, .25 wrongly: two hits, one false alarm, no miss.
    assert rows["f1 at it"] == pytest.approx(0.8)
    assert rows["accuracy at it"] == pytest.approx(0.8)
    assert rows["recall_other at it"] == pytest.approx(2 / 3)
    # Both violent clips must be found: at .30, .60 of the calm side sounds too, in 1080 s.
    assert rows["false alarms per hour at recall 0.9"] == pytest.approx(1 / 0.3)


def test_overconfident_scores_are_tempered() -> None:
    generator = np.random.default_rng(0)
    honest = generator.uniform(0.05, 0.95, 4000)
    labels = (generator.uniform(size=4000) < honest).astype(int)
    bold = apply_temperature(np.stack([1 - honest, honest], axis=1), 1 / 3)[:, 1]
    half = slice(None, 2000), slice(2000, None)
    test, held = (scores(bold[part].tolist(), labels[part].tolist()) for part in half)
    rows = dict(map(tuple, chosen_rows([(test, held)], None, np.ones(2000))))
    assert rows["temperature"] == pytest.approx(3.0, rel=0.15)
    assert rows["calibration error"] == pytest.approx(expected_calibration_error(test.probabilities, test.labels))
    tempered, plain = rows["calibration error, tempered"], rows["calibration error"]
    assert isinstance(tempered, float)
    assert isinstance(plain, float)
    assert tempered < 0.05 < plain
    assert "threshold of best F1" not in rows
