"""Thresholds, alarms and frame scores against loops and hand counts."""

import numpy as np
import pytest
from modalgate.tasks.metrics.thresholds import (
    best_f1_threshold,
    false_alarms_per_hour,
    frame_scores,
)
from sklearn.metrics import f1_score


def test_threshold_has_the_best_f1() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(80) < 0.4
    scores = positive * 0.4 + generator.random(80)
    found = best_f1_threshold(scores, positive)
    best = f1_score(positive, scores >= found)
    assert best == pytest.approx(max(f1_score(positive, scores >= threshold) for threshold in scores))
    assert all(f1_score(positive, scores >= t) < best for t in scores if t > found)


def test_a_threshold_needs_a_positive_clip() -> None:
    with pytest.raises(ValueError, match="no clip is positive"):
        best_f1_threshold(np.ones(3), np.zeros(3))


def test_false_alarms_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.85, 0.75, 0.1, 0.05])
    positive = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    seconds = np.array([5, 5, 5, 5, 900, 900, 900, 900])
    assert false_alarms_per_hour(scores, positive, seconds, recall=0.25) == 0
    assert false_alarms_per_hour(scores, positive, seconds, recall=0.5) == 1
    assert false_alarms_per_hour(scores, positive, seconds, recall=0.75) == 2
    assert false_alarms_per_hour(scores, positive, seconds, recall=1.0) == 2
    assert false_alarms_per_hour(scores, positive, seconds / 2, recall=0.5) == 2


def test_false_alarms_of_one_class_or_zero_recall_raise() -> None:
    with pytest.raises(ValueError, match="positive and negative"):
        false_alarms_per_hour(np.ones(2), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="recall is 0"):
        false_alarms_per_hour(np.ones(2), np.array([0, 1]), np.ones(2), recall=0)


def test_frame_scores_are_means_of_covering_windows() -> None:
    starts, ends, scores = np.array([0.0, 1.0, 4.0]), np.array([2.0, 3.0, 5.0]), np.array([0.2, 0.6, 1.0])
    times = np.array([0.5, 1.5, 2.5, 3.2, 3.8, 4.5, 9.0])
    np.testing.assert_allclose(frame_scores(starts, ends, scores, times), [0.2, 0.4, 0.6, 0.6, 1.0, 1.0, 1.0])
