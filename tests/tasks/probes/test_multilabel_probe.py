"""The multilabel probe finds planted signals with their known precision, and nothing in noise."""

import numpy as np
import pytest
from modalgate.tasks.features.extract import Features
from modalgate.tasks.metrics.multilabel import mean_average_precision
from modalgate.tasks.probes.knn import knn_scores
from modalgate.tasks.probes.multilabel_probe import fit_multilabel_probe, probe_multilabel
from modalgate.tasks.splits.splits import Split
from sklearn.linear_model import LogisticRegression

CLIPS = 400


def planted(seed: int = 0) -> tuple[Features, np.ndarray]:
    """Two independent classes, each along one axis of rgb. Audio is noise, and half of the clips have it."""
    generator = np.random.default_rng(seed)
    truth = (generator.random((CLIPS, 2)) < [0.5, 0.2]).astype(int)
    rgb = truth * 8.0 - 4 + generator.standard_normal((CLIPS, 2))
    audio, heard = generator.standard_normal((CLIPS, 2)), np.arange(CLIPS) % 2 == 0
    values = {"fused": rgb, "rgb": rgb, "audio": audio, "concat": np.concatenate([rgb, audio], axis=1)}
    everywhere = np.ones(CLIPS, bool)
    present = {"fused": everywhere, "rgb": everywhere, "audio": heard, "concat": everywhere}
    values = {name: rows.astype(np.float32) for name, rows in values.items()}
    weights = np.full((CLIPS, 2), 0.5, np.float32)
    return Features(("rgb", "audio"), values, present, weights, [str(n) for n in range(CLIPS)]), truth


def halves() -> Split:
    numbers = np.arange(CLIPS)
    return Split("half", numbers[:200], numbers[:0], numbers[200:])


def test_a_planted_signal_is_found_and_noise_scores_at_chance() -> None:
    features, truth = planted()
    rows = {row.feature: row for row in probe_multilabel(features, truth, [halves()])}
    assert list(rows) == ["fused", "rgb", "audio", "concat"]
    assert rows["rgb"].mean_average_precision > 0.999
    assert rows["rgb"].knn > 0.99
    assert rows["rgb"].micro_f1 > 0.98
    assert rows["rgb"].macro_f1 > 0.98
    assert rows["audio"].clips == 100
    # For random scores, average precision is about the share of the class.
    shares = truth[200::2].mean(axis=0)
    assert np.array(rows["audio"].precisions) == pytest.approx(shares, abs=0.15)
    assert rows["audio"].low <= rows["audio"].mean_average_precision <= rows["audio"].high


def test_random_labels_stay_at_chance() -> None:
    features, _ = planted()
    truth = (np.random.default_rng(9).random((CLIPS, 2)) < 0.3).astype(int)
    for row in probe_multilabel(features, truth, [halves()]):
        assert row.mean_average_precision < 0.45
        assert row.knn < 0.45


def test_each_class_equals_scikit_learn() -> None:
    features, truth = planted()
    values = features.values["audio"][:200]
    held = (features.values["audio"][200:], truth[200:])
    probe = fit_multilabel_probe(values, truth[:200], validation=held)
    everything = features.values["audio"]
    scaled = (everything - everything.mean(axis=0)) / everything.std(axis=0)
    for number in range(2):
        model = LogisticRegression(C=probe.strength, tol=1e-6, max_iter=5000).fit(scaled, truth[:, number])
        found = probe.scores(everything)[:, number]
        np.testing.assert_allclose(found, model.predict_proba(scaled)[:, 1], atol=1e-3)


def test_a_constant_class_gets_a_constant_prediction() -> None:
    features, truth = planted()
    truth = np.stack([truth[:, 0], np.ones(CLIPS, int), np.zeros(CLIPS, int)], axis=1)
    scores = fit_multilabel_probe(features.values["rgb"], truth).scores(features.values["rgb"])
    assert (scores[:, 1] > 0.99).all()
    assert (scores[:, 2] < 0.01).all()
    assert mean_average_precision(scores[:, :1], truth[:, :1]) > 0.999


def test_neighbours_score_every_class() -> None:
    features, truth = planted()
    bank, queries = features.values["rgb"][:50], features.values["rgb"][50:60]
    found = knn_scores(bank, truth[:50], queries, 2)
    for number in range(2):
        alone = knn_scores(bank, truth[:50, number], queries, 2)[:, 1]
        np.testing.assert_allclose(found[:, number], alone)


@pytest.mark.slow
def test_average_precision_is_a_mean_over_the_splits_where_the_class_occurs() -> None:
    features, truth = planted()
    numbers = np.arange(CLIPS)
    truth = np.concatenate([truth, truth[:, :1]], axis=1)
    # The third class occurs among the test clips of the first split only.
    truth[200:250, 2] = 0
    splits = [
        Split("one", numbers[250:], numbers[:0], numbers[150:200]),
        Split("two", numbers[:150], numbers[:0], numbers[200:250]),
    ]
    found = {row.feature: row for row in probe_multilabel(features, truth, splits)}["audio"]
    each = [{row.feature: row for row in probe_multilabel(features, truth, [split])}["audio"] for split in splits]
    expected = np.nanmean([row.precisions for row in each], axis=0)
    np.testing.assert_allclose(found.precisions, expected)
    assert np.isnan(each[1].precisions[2])
    assert found.mean_average_precision == pytest.approx(expected.mean())
    heard = [[n for n in split.test if features.present["audio"][n]] for split in splits]
    shares = [truth[rows].mean(axis=0) for rows in heard]
    chance = (np.mean([s[0] for s in shares]) + np.mean([s[1] for s in shares]) + shares[0][2]) / 3
    assert found.chance == pytest.approx(chance)
