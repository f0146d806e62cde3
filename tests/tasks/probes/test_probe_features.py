"""The probe of features with a planted signal."""

import numpy as np
import pytest
from modalgate.tasks.features.extract import Features
from modalgate.tasks.probes.probe_features import probe_features
from modalgate.tasks.splits.splits import Split

CLIPS = 240


def planted(seed: int = 0) -> tuple[Features, np.ndarray]:
    """Classes 0 to 2 are in rgb. A third of the clips has audio, which is noise. Fused is rgb without its sign."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, CLIPS)
    rgb = np.eye(3)[labels] * 4 + generator.standard_normal((CLIPS, 3)) * 0.3
    audio = generator.standard_normal((CLIPS, 3))
    heard = np.arange(CLIPS) % 3 == 0
    values = {"fused": generator.standard_normal((CLIPS, 3)), "rgb": rgb, "audio": audio * heard[:, None]}
    values["concat"] = np.concatenate([values["rgb"], values["audio"]], axis=1)
    everywhere = np.ones(CLIPS, bool)
    present = {"fused": everywhere, "rgb": everywhere, "audio": heard, "concat": everywhere}
    values = {name: rows.astype(np.float32) for name, rows in values.items()}
    weights = np.full((CLIPS, 2), 0.5, np.float32)
    return Features(("rgb", "audio"), values, present, weights, [str(n) for n in range(CLIPS)]), labels


def halves() -> Split:
    numbers = np.arange(CLIPS)
    return Split("half", numbers[:120], numbers[120:150], numbers[150:])


def test_only_features_with_signal_score_above_chance() -> None:
    features, labels = planted()
    rows = {row.feature: row for row in probe_features(features, labels, 3, [halves()])}
    assert list(rows) == ["fused", "rgb", "audio", "concat"]
    assert rows["rgb"].accuracy == rows["rgb"].knn == 1.0
    assert rows["concat"].accuracy > 0.95
    # Three standard errors of chance on 90 clips.
    assert abs(rows["fused"].accuracy - 1 / 3) < 3 * np.sqrt(2 / 9 / 90)
    assert rows["fused"].low <= rows["fused"].accuracy <= rows["fused"].high
    assert all(row.auc is None for row in rows.values())


def test_a_row_counts_only_clips_with_the_modality() -> None:
    features, labels = planted()
    rows = {row.feature: row.clips for row in probe_features(features, labels, 3, [halves()])}
    assert rows == {"fused": 90, "rgb": 90, "audio": 30, "concat": 90}


def test_test_clips_are_pooled_over_folds() -> None:
    features, labels = planted()
    numbers, nothing = np.arange(CLIPS), np.array([], int)
    folds = [Split(f"fold-{k}", numbers[numbers % 4 != k], nothing, numbers[numbers % 4 == k]) for k in range(4)]
    rows = {row.feature: row for row in probe_features(features, labels, 3, folds, [str(n) for n in numbers])}
    assert rows["rgb"].clips == CLIPS
    assert rows["rgb"].accuracy == 1.0


def test_two_classes_have_the_auc_of_the_positive_class() -> None:
    features, labels = planted()
    rows = {row.feature: row for row in probe_features(features, (labels == 1).astype(int), 2, [halves()])}
    assert rows["rgb"].auc == 1.0


def test_a_modality_without_clips_gives_an_empty_row() -> None:
    features, labels = planted()
    features.present["audio"][:] = False
    row = {row.feature: row for row in probe_features(features, labels, 3, [halves()])}["audio"]
    assert row.clips == 0
    assert np.isnan(row.accuracy)


def test_the_auc_is_a_mean_over_splits_with_other_scales() -> None:
    """The first split's training clips are mostly of one class, so all its scores are higher than the second's."""
    generator = np.random.default_rng(1)
    labels = np.concatenate([np.tile([0, 1], 60), (np.arange(120) % 12 > 0).astype(int)])
    rgb = (labels[:, None] + 1.5 * generator.standard_normal((CLIPS, 3))).astype(np.float32)
    everywhere, names = np.ones(CLIPS, bool), ("fused", "rgb", "concat")
    features = Features(
        ("rgb",), dict.fromkeys(names, rgb), dict.fromkeys(names, everywhere), np.ones((CLIPS, 1), np.float32), []
    )
    numbers = np.arange(CLIPS)
    # Both splits are tested on balanced clips.
    splits = [
        Split("one", numbers[120:], numbers[:0], numbers[:60]),
        Split("two", numbers[:60], numbers[:0], numbers[60:120]),
    ]
    found = probe_features(features, labels, 2, splits)[0].auc
    each = [probe_features(features, labels, 2, [split])[0].auc for split in splits]
    assert found == pytest.approx(np.mean(np.array(each, float)))


def test_a_clip_tested_by_two_splits_counts_twice() -> None:
    features, labels = planted()
    numbers = np.arange(CLIPS)
    twice = [halves(), Split("other", numbers[:100], numbers[:0], numbers[140:200])]
    rows = {row.feature: row.clips for row in probe_features(features, labels, 3, twice)}
    assert rows["rgb"] == 90 + 60
