"""Metrics against naive counting and scikit-learn, and intervals against closed forms and their coverage."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk
from modalgate.tasks.metrics.classification import (
    action_metrics,
    average_precision,
    bootstrap_interval,
    class_recalls,
    confusion,
    mean_class_accuracy,
    roc_auc,
    top_k_accuracy,
    violence_metrics,
    wilson_interval,
)

GENERATOR = np.random.default_rng(0)
PROBABILITIES = GENERATOR.dirichlet(np.ones(7), 200)
LABELS = GENERATOR.integers(0, 6, 200)  # class 6 never occurs
POSITIVE = GENERATOR.integers(0, 2, 80)
SCORES = np.round(np.clip(0.25 * POSITIVE + GENERATOR.random(80) * 0.75, 0, 1), 2)  # with ties
NAMES = ("no_fall", "fall")


def test_action_metrics_equal_naive_counts() -> None:
    ranked = [sorted(range(7), key=lambda c, row=row: -row[c]) for row in PROBABILITIES]
    hits = {k: sum(label in best[:k] for best, label in zip(ranked, LABELS, strict=True)) for k in (1, 5)}
    recalls = []
    for number in range(6):
        rows = [best[0] for best, label in zip(ranked, LABELS, strict=True) if label == number]
        recalls.append(rows.count(number) / len(rows))
    metrics = action_metrics(PROBABILITIES, LABELS)
    assert metrics == pytest.approx(
        {"accuracy": hits[1] / 200, "top5_accuracy": hits[5] / 200, "mean_class_accuracy": sum(recalls) / 6}
    )
    assert top_k_accuracy(PROBABILITIES, LABELS, 7) == 1.0
    found = class_recalls(PROBABILITIES.argmax(axis=1), LABELS, 7)
    assert found[:6] == pytest.approx(recalls)
    assert math.isnan(found[6])
    assert "top5_accuracy" not in action_metrics(PROBABILITIES[:, :5], np.minimum(LABELS, 4))


def test_mean_class_accuracy_weights_classes_equally() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    always_zero = np.tile([0.9, 0.1], (100, 1))
    assert top_k_accuracy(always_zero, labels) == pytest.approx(0.9)
    assert mean_class_accuracy(always_zero, labels) == pytest.approx(0.5)


def test_confusion_has_the_truth_in_rows() -> None:
    assert confusion(np.array([1, 1, 0]), np.array([0, 1, 0]), 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_violence_metrics_equal_naive_counts() -> None:
    pairs = [(a > b) + (a == b) / 2 for a in SCORES[POSITIVE == 1] for b in SCORES[POSITIVE == 0]]
    precision_by_recall, found = 0.0, 0
    for threshold in sorted(set(SCORES.tolist()), reverse=True):
        called = threshold <= SCORES
        right = int((called & (POSITIVE == 1)).sum())
        precision_by_recall += (right - found) / POSITIVE.sum() * right / called.sum()
        found = right
    both = int(((SCORES >= 0.5) & (POSITIVE == 1)).sum())
    alarms, violent = int((SCORES >= 0.5).sum()), int(POSITIVE.sum())
    correct = both + int(((SCORES < 0.5) & (POSITIVE == 0)).sum())
    assert violence_metrics(SCORES, POSITIVE, NAMES) == pytest.approx(
        {
            "accuracy": correct / 80,
            "auc": sum(pairs) / len(pairs),
            "average_precision": precision_by_recall,
            "f1": 2 * both / (alarms + violent),
            "recall_fall": both / violent,
            "recall_no_fall": 1 - (alarms - both) / (80 - violent),
        }
    )
    assert violence_metrics(SCORES, POSITIVE.astype(bool), NAMES) == violence_metrics(SCORES, POSITIVE, NAMES)
    everything = violence_metrics(SCORES, POSITIVE, NAMES, threshold=0.0)
    assert (everything["recall_fall"], everything["recall_no_fall"]) == (1.0, 0.0)


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_areas_f1_and_confusion_equal_scikit_learn(digits: int) -> None:
    generator = np.random.default_rng(digits)
    for rows in range(2, 30):
        positive = generator.permutation(np.arange(rows) < max(1, rows // 3))
        scores = np.round(generator.random(rows), digits)
        assert roc_auc(scores, positive) == pytest.approx(sk.roc_auc_score(positive, scores))
        assert average_precision(scores, positive) == pytest.approx(sk.average_precision_score(positive, scores))
        guessed = (scores >= 0.5).astype(int)
        assert violence_metrics(scores, positive, NAMES)["f1"] == pytest.approx(sk.f1_score(positive, guessed))
        counted = confusion(guessed, positive.astype(int), 3)
        assert np.array_equal(counted, sk.confusion_matrix(positive, guessed, labels=[0, 1, 2]))


@pytest.mark.parametrize("side", [0, 1])
def test_with_one_class_some_metrics_are_undefined(side: int) -> None:
    metrics = violence_metrics(np.array([0.2, 0.7, 0.9]), np.full(3, side), NAMES)
    assert math.isnan(metrics["auc"])
    assert math.isnan(metrics["average_precision"]) == math.isnan(metrics["f1"]) == (side == 0)
    assert math.isnan(metrics["recall_no_fall"]) == (side == 1)
    assert metrics["accuracy"] == pytest.approx(2 / 3 if side else 1 / 3)


def test_no_samples_raise() -> None:
    for measure in (
        lambda: action_metrics(np.zeros((0, 3)), np.zeros(0, int)),
        lambda: violence_metrics(np.zeros(0), np.zeros(0, int), NAMES),
        lambda: roc_auc(np.zeros(0), np.zeros(0)),
        lambda: average_precision(np.zeros(0), np.zeros(0)),
        lambda: wilson_interval(0, 0),
        lambda: bootstrap_interval(lambda rows: 0.0, []),
    ):
        with pytest.raises(ValueError, match="no samples to score"):
            measure()


def test_invalid_scores_and_labels_raise() -> None:
    with pytest.raises(ValueError, match="not finite"):
        action_metrics(np.array([[0.5, np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match="2 rows of scores, but 1 labels"):
        roc_auc(np.zeros(2), np.zeros(1))
    for label in (-1, 2):
        with pytest.raises(ValueError, match="there are 2 classes"):
            action_metrics(np.array([[0.5, 0.5]]), np.array([label]))
        with pytest.raises(ValueError, match="there are 2 classes"):
            violence_metrics(np.array([0.5]), np.array([label]), NAMES)


def test_wilson_interval_equals_its_closed_form() -> None:
    for correct, count in ((0, 10), (7, 10), (400, 400), (123, 400)):
        z, share = 1.959963984540054, correct / count
        centre = (share + z * z / (2 * count)) / (1 + z * z / count)
        half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
        assert wilson_interval(correct, count) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_bootstrap_width_of_a_mean_matches_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), [str(i) for i in range(400)])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    assert low < values.mean() < high


def test_bootstrap_by_group_covers_where_bootstrap_by_clip_does_not() -> None:
    generator = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 10)
    covered = {"groups": 0, "clips": 0}
    for _ in range(60):
        # Ten near-duplicates per recording. The true mean is zero.
        values = generator.normal(size=40)[groups] + 0.1 * generator.normal(size=400)
        for name, units in (("groups", groups), ("clips", np.arange(400))):
            low, high = bootstrap_interval(lambda rows, v=values: float(v[rows].mean()), units, draws=150)
            covered[name] += low <= 0 <= high
    # Nominal coverage is 95 %, which is 57 of 60. Three standard errors are 5.
    assert covered["groups"] >= 52
    assert covered["clips"] < 42


def test_bootstrap_draws_whole_groups_and_drops_undefined_draws() -> None:
    groups = ["a", "b", "b", "c", "c", "c"]
    seen: set[tuple[int, ...]] = set()

    def statistic(rows: np.ndarray) -> float:
        counts = np.bincount(rows, minlength=6)
        seen.add(tuple(counts.tolist()))
        return float("nan") if not counts[0] else float(counts[0])

    low, high = bootstrap_interval(statistic, groups, draws=300)
    assert all(c[1] == c[2] and c[3] == c[4] == c[5] and c[0] + c[1] + c[3] == 3 for c in seen)
    # There are ten multisets of three groups. Each is drawn with a probability of at least 1 / 27.
    assert len(seen) == 10
    assert (low, high) == (1.0, pytest.approx(2, abs=1))
    assert all(math.isnan(bound) for bound in bootstrap_interval(lambda rows: float("nan"), groups, draws=5))
    again = [bootstrap_interval(lambda rows: float(rows.mean()), groups, draws=50, seed=7) for _ in range(2)]
    assert again[0] == again[1]
