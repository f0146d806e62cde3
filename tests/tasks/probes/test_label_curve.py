"""The label curve over a probe's splits, on features whose accuracy is planted."""

import numpy as np
import pytest
from modalgate.tasks.features.extract import Features
from modalgate.tasks.probes.label_curve import label_curves
from modalgate.tasks.probes.label_fraction import label_fraction_curve
from modalgate.tasks.splits.splits import Split

CLASSES, CLIPS = 3, 240


def planted(clips: int = CLIPS) -> tuple[Features, np.ndarray]:
    """`rgb` is the class plus noise. `audio` is noise, and only every other clip has it."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.arange(clips) % CLASSES)
    rgb = np.eye(CLASSES)[labels].repeat(2, axis=1) + 0.5 * generator.normal(size=(clips, 2 * CLASSES))
    audio = generator.normal(size=(clips, 6))
    heard = np.arange(clips) % 2 == 0
    values = {"fused": rgb, "rgb": rgb, "audio": audio * heard[:, None]}
    features = Features.joined(
        ("rgb", "audio"),
        {name: array.astype(np.float32) for name, array in values.items()},
        {"rgb": np.ones(clips, bool), "audio": heard},
        np.full((clips, 2), 0.5, np.float32),
        [str(i) for i in range(clips)],
    )
    return features, labels


def halves(clips: int = CLIPS) -> list[Split]:
    rows = np.arange(clips)
    cut = clips // 3
    return [Split("a", rows[cut:], rows[:0], rows[:cut]), Split("b", rows[:cut], rows[:0], rows[cut:])]


@pytest.mark.slow
def test_accuracy_grows_with_labels_for_signal_and_stays_at_chance_for_noise() -> None:
    features, labels = planted()
    rows = {row.feature: row for row in label_curves(features, labels, CLASSES, halves(), fractions=(0.05, 1.0))}
    assert list(rows) == ["fused", "rgb", "audio", "concat"]
    assert rows["rgb"].mean[1] > max(rows["rgb"].mean[0], 0.85)
    assert abs(rows["audio"].mean[1] - 1 / CLASSES) < 0.15
    assert rows["rgb"].std[1] == 0
    assert rows["rgb"].few_shot[5][0] > rows["rgb"].few_shot[1][0] > rows["audio"].few_shot[1][0] + 0.2
    assert rows["rgb"].ways == CLASSES


@pytest.mark.slow
def test_splits_are_weighted_by_their_test_clips() -> None:
    features, labels = planted()
    [row] = [
        row
        for row in label_curves(features, labels, CLASSES, halves(), fractions=(0.1, 1.0))
        if row.feature == "audio"
    ]
    means, counts, weights = [], [], []
    for split in halves():
        train, test = (part[features.present["audio"][part]] for part in (split.train, split.test))
        curve = label_fraction_curve(
            features.values["audio"][train],
            labels[train],
            features.values["audio"][test],
            labels[test],
            CLASSES,
            (0.1, 1.0),
        )
        means.append([point.mean for point in curve])
        counts.append([point.clips for point in curve])
        weights.append(len(test))
    np.testing.assert_allclose(row.mean, np.average(means, axis=0, weights=weights))
    np.testing.assert_allclose(row.clips, np.average(counts, axis=0, weights=weights))


@pytest.mark.slow
def test_a_modality_without_clips_gives_an_empty_row() -> None:
    features, labels = planted(60)
    features.present["audio"][:] = False
    rows = label_curves(features, labels, CLASSES, halves(60), fractions=(1.0,))
    row = {row.feature: row for row in rows}["audio"]
    assert np.isnan(row.mean).all()
    assert row.few_shot == {}
