"""Label fractions and few-shot episodes on planted features."""

import numpy as np
import pytest
from modalgate.tasks.probes.label_fraction import few_shot_accuracy, label_fraction_curve


def planted(clips: int, spread: float, seed: int = 0, idle: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four classes, one axis each, with noise of deviation `spread` there and along `idle` more axes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(clips) % 4
    return np.eye(4 + idle)[labels] * 3 + generator.normal(size=(clips, 4 + idle)) * spread, labels


def test_more_labels_help_and_few_suffice_for_separable_classes() -> None:
    train, labels = planted(400, 1.5, idle=4)
    test, truth = planted(400, 1.5, seed=1, idle=4)
    points = label_fraction_curve(train, labels, test, truth, 4, fractions=(0.01, 0.1, 1.0), draws=3)
    assert [point.clips for point in points] == [4, 40, 400]
    assert points[0].mean + 0.1 < points[1].mean < points[2].mean
    assert points[2].std == 0
    plain, plain_labels = planted(400, 0.2)
    [point] = label_fraction_curve(plain, plain_labels, *planted(100, 0.2, seed=1), 4, fractions=(0.01,), draws=2)
    assert point.mean == 1.0


def test_random_labels_stay_at_chance_at_every_fraction() -> None:
    generator = np.random.default_rng(3)
    train, test = generator.normal(size=(300, 6)), generator.normal(size=(600, 6))
    labels, truth = generator.integers(0, 3, 300), generator.integers(0, 3, 600)
    for point in label_fraction_curve(train, labels, test, truth, 3, fractions=(0.05, 1.0), draws=3):
        assert abs(point.mean - 1 / 3) < 3 * np.sqrt(2 / 9 / 600)


def test_every_class_keeps_a_clip() -> None:
    train, labels = planted(40, 0.1)
    [point] = label_fraction_curve(train, labels, train, labels, 4, fractions=(0.001,), draws=1)
    assert point.clips == 4
    assert point.mean == 1.0


def test_a_fraction_of_zero_raises() -> None:
    with pytest.raises(ValueError, match="above 0"):
        label_fraction_curve(*planted(8, 0.1), *planted(8, 0.1), 4, fractions=(0.0,))


def test_episodes_find_planted_classes_only() -> None:
    features, labels = planted(200, 0.3)
    mean, half = few_shot_accuracy(features, labels, ways=4, shots=1, episodes=100)
    assert mean > 0.99
    noise = np.random.default_rng(0).normal(size=(200, 4))
    mean, half = few_shot_accuracy(noise, labels, ways=4, shots=5, episodes=400)
    assert abs(mean - 0.25) < 2 * half + 0.02


def test_episodes_need_enough_classes_with_enough_clips() -> None:
    features, labels = planted(8, 0.3)
    with pytest.raises(ValueError, match="4 classes have more than 1 clips"):
        few_shot_accuracy(features, labels)
    with pytest.raises(ValueError, match="0 classes have more than 2"):
        few_shot_accuracy(features, labels, ways=2, shots=2)


def test_groups_stay_together_in_the_inner_folds() -> None:
    """Twins share a random label. If an inner fold separated them, memorising would look like generalising."""
    generator = np.random.default_rng(5)
    twins = np.repeat(generator.normal(size=(60, 30)), 2, axis=0)
    labels = np.repeat(generator.integers(0, 2, 60), 2)
    test, truth = generator.normal(size=(400, 30)), generator.integers(0, 2, 400)
    groups = np.repeat(np.arange(60), 2).astype(str)
    [point] = label_fraction_curve(twins, labels, test, truth, 2, fractions=(1.0,), groups=groups)
    assert abs(point.mean - 0.5) < 3 * 0.5 / np.sqrt(400)
