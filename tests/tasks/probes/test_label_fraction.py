"""Label fractions and few-shot episodes on planted features."""

import numpy as np
import pytest
from modalgate.tasks.probes.label_fraction import _support, able_classes, few_shot_accuracy, label_fraction_curve


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


@pytest.mark.slow
def test_episodes_find_planted_classes_only() -> None:
    features, labels = planted(200, 0.3)
    found = few_shot_accuracy(features, labels, ways=4, shots=1, episodes=100)
    assert found is not None
    assert found[0] > 0.99
    noise = np.random.default_rng(0).normal(size=(200, 4))
    found = few_shot_accuracy(noise, labels, ways=4, shots=5, episodes=400)
    assert found is not None
    assert abs(found[0] - 0.25) < 2 * found[1] + 0.02


def test_episodes_need_enough_classes_with_enough_clips() -> None:
    features, labels = planted(8, 0.3)
    with pytest.raises(ValueError, match="4 classes have more than 1 clips, with a query in another group"):
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


@pytest.mark.slow
def test_no_query_shares_a_group_with_a_labelled_clip() -> None:
    """Clips of one recording are equal, and the label is random: only a shared recording gives it away."""
    labels, groups = np.repeat(np.arange(24) % 4, 6), np.repeat(np.arange(24), 6).astype(str)
    for shots in (1, 5):
        alone, apart = [], []
        for seed in range(12):
            features = np.repeat(np.random.default_rng(seed).normal(size=(24, 40)), 6, axis=0)
            for found, units in ((alone, None), (apart, groups)):
                entry = few_shot_accuracy(features, labels, ways=4, shots=shots, episodes=25, seed=seed, groups=units)
                assert entry is not None
                found.append(entry[0])
        error = np.std(apart) / np.sqrt(12)
        assert abs(np.mean(apart) - 0.25) < 3 * error < np.mean(alone) - 0.25


@pytest.mark.parametrize("shots", [1, 5])
def test_subjects_who_show_every_class_are_divided_by_episode(shots: int) -> None:
    """Features are the subject: four subjects show all classes, so a shared subject would favour a wrong class."""
    labels = np.tile(np.repeat(np.arange(5), 4), 4)
    subjects = np.repeat(np.arange(4), 20)
    features = np.eye(5)[labels] + 4 * np.random.default_rng(0).normal(size=(4, 5))[subjects]
    assert able_classes(labels, shots, subjects) == [0, 1, 2, 3, 4]
    found = few_shot_accuracy(features, labels, ways=5, shots=shots, episodes=50, groups=subjects.astype(str))
    assert found is not None
    rows = [np.flatnonzero(labels == c) for c in range(5)]
    for seed in range(20):
        support = _support(rows, subjects, shots, np.random.default_rng(seed))
        assert support is not None
        assert [len(given) for given in support] == [shots] * 5
        taken = set(subjects[np.concatenate(support)])
        assert len(taken) < 4, "a subject is left for the queries"
        # Labelled clips of a class are from different subjects while there are some.
        assert all(len(set(subjects[given])) == min(shots, 3) for given in support)


def test_a_class_in_one_group_has_no_episodes() -> None:
    labels, groups = np.repeat([0, 1], 8), np.array(["a"] * 8 + ["b", "c"] * 4)
    assert able_classes(labels, 1, groups) == [1]
    assert able_classes(labels, 5, groups) == []
    with pytest.raises(ValueError, match="1 classes have more than 1 clips, with a query in another group"):
        few_shot_accuracy(np.eye(16), labels, ways=2, shots=1, groups=groups)
