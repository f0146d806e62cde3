"""Calibration against naive loops and planted temperatures."""

import numpy as np
import pytest
from modalgate.tasks.metrics.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
)


def honest(clips: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities, with labels drawn from them."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.7), clips)
    labels = (generator.random((clips, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, np.minimum(labels, classes - 1)


def naive_error(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    total = 0.0
    for number in range(bins):
        inside = [row for row in range(len(labels)) if min(int(probabilities[row].max() * bins), bins - 1) == number]
        if inside:
            right = np.mean([probabilities[row].argmax() == labels[row] for row in inside])
            total += len(inside) / len(labels) * abs(right - np.mean([probabilities[row].max() for row in inside]))
    return total


def test_the_error_equals_a_loop_over_bins() -> None:
    probabilities, labels = honest(400)
    assert expected_calibration_error(probabilities, labels, 7) == pytest.approx(
        naive_error(probabilities, labels, 7)
    )


def test_calibrated_probabilities_have_no_error_and_overconfident_ones_do() -> None:
    probabilities, labels = honest(20_000)
    assert expected_calibration_error(probabilities, labels) < 0.015
    overconfident = apply_temperature(probabilities, 1 / 3)
    assert expected_calibration_error(overconfident, labels) > 0.08


def test_certain_predictions_fall_into_the_last_bin() -> None:
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0
    assert expected_calibration_error(np.eye(3), np.array([1, 2, 0])) == 1


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    probabilities, labels = honest(20_000, seed=3)
    spoiled = apply_temperature(probabilities, 1 / temperature)
    assert fit_temperature(spoiled, labels) == pytest.approx(temperature, rel=0.05)
    mended = apply_temperature(spoiled, temperature)
    np.testing.assert_allclose(mended, probabilities, atol=1e-6)
    np.testing.assert_array_equal(spoiled.argmax(axis=1), mended.argmax(axis=1))


def test_no_clips_raise() -> None:
    with pytest.raises(ValueError, match="no samples"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(ValueError, match="no samples"):
        expected_calibration_error(np.zeros((0, 2)), np.zeros(0, int))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_few_correct_clips_do_not_give_certainty(classes: int) -> None:
    labels = np.arange(20) % classes
    probabilities = np.full((20, classes), 0.2 / (classes - 1))
    probabilities[np.arange(20), labels] = 0.8
    sharpened = apply_temperature(probabilities, fit_temperature(probabilities, labels))
    # All clips are equal, so the fitted probability equals the target, (n + 1) / (n + 2).
    assert sharpened[np.arange(20), labels] == pytest.approx(21 / 22, abs=1e-3)
