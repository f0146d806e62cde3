"""The linear probe: a planted signal, chance, the optimum, and which clips each choice uses."""

import math

import numpy as np
import pytest
from modalgate.tasks.probes.linear_probe import STRENGTHS, LinearProbe, fit_linear_probe
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits


def _gaussians(n: int, dimensions: int, classes: int, distance: float, seed: int) -> tuple[NDArray, NDArray]:
    """Gaussians with different scales per axis. Class c is moved by `distance` / sqrt 2 along axis c."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    features = generator.normal(size=(n, dimensions))
    features[np.arange(n), labels] += distance / math.sqrt(2)
    return (features * 10.0 ** np.linspace(-2, 2, dimensions) + 5).astype(np.float32), labels


def _accuracy(probe: LinearProbe, features: NDArray, labels: NDArray) -> float:
    return float((probe.scores(features).argmax(axis=1) == labels).mean())


def test_a_planted_signal_is_found_to_the_bayes_accuracy() -> None:
    probe = fit_linear_probe(*_gaussians(3000, 8, 2, 2.0, 0), 2)
    bayes = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    tested = 4000
    error = math.sqrt(bayes * (1 - bayes) / tested)
    assert abs(_accuracy(probe, *_gaussians(tested, 8, 2, 2.0, 1)) - bayes) < 3 * error


@pytest.mark.parametrize("classes", [2, 5])
def test_random_labels_stay_at_chance(classes: int) -> None:
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(2600, 32)), generator.integers(0, classes, 2600)
    probe = fit_linear_probe(features[:600], labels[:600], classes)
    error = math.sqrt((1 - 1 / classes) / classes / 2000)
    assert abs(_accuracy(probe, features[600:], labels[600:]) - 1 / classes) < 3 * error


@pytest.mark.parametrize("classes", [2, 4])
def test_the_solution_is_the_optimum_of_the_stated_objective(classes: int) -> None:
    features, labels = _gaussians(400, 12, classes, 2.0, 0)
    probe = fit_linear_probe(features, labels, classes)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    # The explicit gradient: C X^T (p - y) + W, and sum (p - y) for the bias.
    residual = probe.scores(features) - np.eye(classes)[labels]
    gradient = probe.strength * scaled.T @ residual + probe.weight
    solved = slice(1, None) if classes == 2 else slice(None)
    assert np.abs(gradient[:, solved]).max() < 2e-3 * probe.strength * len(labels) ** 0.5
    assert np.abs(residual.sum(axis=0)).max() < 2e-3 * len(labels) ** 0.5
    expected = LogisticRegression(C=probe.strength, tol=1e-8, max_iter=10_000).fit(scaled, labels)
    assert probe.scores(features) == pytest.approx(expected.predict_proba(scaled), abs=2e-4)


@threadpool_limits.wrap(limits=1, user_api="blas")
def _naive_strength(folds: list[tuple[NDArray, NDArray]], features: NDArray, labels: NDArray) -> float:
    """Fresh double-precision fits for every strength and fold."""
    right = dict.fromkeys(STRENGTHS, 0.0)
    for fit, held in folds:
        scaler = StandardScaler().fit(features[fit])
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=5000).fit(scaler.transform(features[fit]), labels[fit])
            right[strength] += float((model.predict(scaler.transform(features[held])) == labels[held]).sum())
    return max(right, key=lambda strength: right[strength])


def test_validation_chooses_the_strength_and_the_final_fit_uses_all() -> None:
    features, labels = _gaussians(500, 40, 3, 1.6, 0)
    train, held = np.arange(120), np.arange(120, 500)
    probe = fit_linear_probe(features[train], labels[train], 3, validation=(features[held], labels[held]))
    assert probe.strength == _naive_strength([(train, held)], features, labels)
    assert probe.mean == pytest.approx(features.mean(axis=0, dtype=np.float64))


def test_choosing_scales_by_the_fitted_clips_only() -> None:
    features, labels = _gaussians(500, 40, 3, 1.6, 0)
    train, held = np.arange(120), np.arange(120, 500)
    # If scaling used these, all others would shrink a hundredfold and need another strength.
    features[-5:] *= 1000
    probe = fit_linear_probe(features[train], labels[train], 3, validation=(features[held], labels[held]))
    assert probe.strength == _naive_strength([(train, held)], features, labels)


@pytest.mark.parametrize("grouped", [False, True])
def test_inner_folds_choose_the_strength_and_keep_groups_together(grouped: bool) -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    # Near-duplicates: clips of one recording look alike, which predicts the label only within that recording.
    labels = generator.integers(0, 2, 40)[groups]
    features = 2 * generator.normal(size=(40, 30))[groups] + generator.normal(size=(200, 30))
    features[:, 0] += labels
    names = [f"scene-{group}" for group in groups]
    if grouped:
        folds = StratifiedGroupKFold(3, shuffle=True, random_state=0).split(features, labels, names)
    else:
        folds = StratifiedKFold(3, shuffle=True, random_state=0).split(features, labels)
    probe = fit_linear_probe(features, labels, 2, groups=names if grouped else None)
    assert probe.strength == _naive_strength(list(folds), features, labels)
    # With a recording on both sides, its look seems predictive and a weaker regulariser wins.
    other = fit_linear_probe(features, labels, 2, groups=None if grouped else names)
    assert (probe.strength < other.strength) == grouped


def test_scaling_uses_the_fitted_clips_only() -> None:
    features, labels = _gaussians(300, 6, 3, 2.0, 0)
    features[:, 5] = 3.0
    probe = fit_linear_probe(features, labels, 3)
    assert probe.mean == pytest.approx(features.mean(axis=0, dtype=np.float64))
    assert probe.std[:5] == pytest.approx(features.std(axis=0, dtype=np.float64)[:5])
    assert probe.std[5] == 1.0
    tested, _ = _gaussians(20, 6, 3, 2.0, 1)
    alone = np.concatenate([probe.scores(tested[row : row + 1]) for row in range(20)])
    tested_with_outliers = np.concatenate([tested, tested * 1000])
    assert probe.scores(tested_with_outliers)[:20] == pytest.approx(alone, abs=1e-12)
    assert alone.sum(axis=1) == pytest.approx(np.ones(20))


def test_a_column_that_varies_by_rounding_has_no_effect() -> None:
    features, labels = _gaussians(400, 6, 2, 3.0, 0)
    features[:, 5] = np.where(np.arange(400) % 2, np.float32(1000), np.nextafter(np.float32(1000), np.float32(2000)))
    probe = fit_linear_probe(features[:300], labels[:300], 2)
    shifted = features[300:].copy()
    shifted[:, 5] += 0.1
    assert probe.std[5] == 1.0
    assert probe.scores(shifted) == pytest.approx(probe.scores(features[300:]), abs=1e-3)


def test_the_same_clips_give_the_same_probe() -> None:
    features, labels = _gaussians(200, 10, 3, 1.0, 0)
    first, second = (fit_linear_probe(features, labels, 3) for _ in range(2))
    assert (first.weight == second.weight).all()
    assert (first.bias == second.bias).all()
    assert first.strength == second.strength


def test_classes_that_were_not_fitted_score_zero() -> None:
    features, labels = _gaussians(80, 10, 3, 3.0, 0)
    for known in ([0, 1, 3], [1, 3], [2]):
        numbers = np.array([known[label % len(known)] for label in labels])
        scores = fit_linear_probe(features, numbers, 5).scores(features)
        assert (scores[:, [c for c in range(5) if c not in known]] == 0).all()
        assert scores.sum(axis=1) == pytest.approx(np.ones(80))
    few = fit_linear_probe(features[:2], np.array([0, 1]), 2, groups=["same", "same"])
    assert few.strength == 1.0


def test_invalid_input_raises() -> None:
    features, labels = _gaussians(20, 4, 2, 1.0, 0)
    with pytest.raises(ValueError, match="no samples"):
        fit_linear_probe(features[:0], labels[:0], 2)
    with pytest.raises(ValueError, match="20 rows of features, but 19 labels"):
        fit_linear_probe(features, labels[:19], 2)
    with pytest.raises(ValueError, match="there are 1 classes"):
        fit_linear_probe(features, labels, 1)
    features[3, 2] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        fit_linear_probe(features, labels, 2)
