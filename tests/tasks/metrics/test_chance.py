"""Chance levels in closed form, and warnings for planted predictions that know the class or do not."""

import numpy as np
import pytest
from modalgate.tasks.evaluation.score_summary import chances_of, judge
from modalgate.tasks.evaluation.scores import Scores
from modalgate.tasks.metrics.chance import (
    Figure,
    accuracy_figure,
    action_chances,
    auc_figure,
    chance_warning,
    headline_figures,
    majority_share,
    multilabel_chances,
    untrained_warning,
    violence_chances,
)
from modalgate.tasks.metrics.classification import action_metrics, violence_metrics
from modalgate.tasks.metrics.multilabel import multilabel_metrics


def test_chance_is_what_the_best_constant_prediction_reaches() -> None:
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    constant = np.tile([0.6, 0.3, 0.1, 0.0, 0.0, 0.0], (10, 1))
    chances = action_chances(labels, 6)
    metrics = action_metrics(constant, labels)
    assert chances == pytest.approx(metrics)
    violent = (labels == 1).astype(int)
    found = violence_metrics(np.ones(10), violent, ("no", "yes"))
    chances = violence_chances(violent)
    assert chances["f1"] == pytest.approx(found["f1"])
    assert chances["average_precision"] == pytest.approx(found["average_precision"]) == pytest.approx(0.3)
    assert (chances["auc"], chances["accuracy"]) == (0.5, 0.7)
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    assert multilabel_chances(truth) == pytest.approx(multilabel_metrics(np.ones((4, 3)), truth))
    assert np.isnan(majority_share(labels[:0]))


def scores(knows: bool, count: int = 60, classes: int = 3) -> Scores:
    """Predictions that equal the class, or do not depend on it."""
    labels = np.arange(count) % classes
    probabilities = np.full((count, classes), 1 / classes)
    answers = labels if knows else (np.arange(count) // classes) % classes
    probabilities[np.arange(count), answers] += 1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    keys = [str(number) for number in range(count)]
    return Scores(probabilities.astype(np.float32), np.full((count, 2), 0.5, np.float32), labels, keys)


@pytest.mark.parametrize(("classes", "positive"), [(3, None), (2, 1)])
@pytest.mark.parametrize("knows", [True, False])
def test_predictions_that_do_not_know_the_class_give_a_warning(
    classes: int, positive: int | None, knows: bool
) -> None:
    found = scores(knows, classes=classes)
    metrics, intervals = judge(found, [str(number) for number in range(classes)], positive, found.keys)
    chances = chances_of(found, positive)
    figures = headline_figures(metrics, intervals, chances, found.labels, positive)
    assert {figure.name for figure in figures} == set(intervals)
    said = chance_warning(figures, "change train.steps")
    assert bool(said) != knows
    if not knows:
        assert said[0].endswith("change train.steps")
        assert f"chance {1 / classes:.3f}" in said[0]


def test_a_few_correct_clips_are_still_at_chance() -> None:
    """The bootstrap interval of correct predictions has no width, but three correct clips could be luck."""
    assert accuracy_figure("accuracy", 1.0, 1.0, 1.0, 0.5, 3).at_chance
    assert not accuracy_figure("accuracy", 1.0, 1.0, 1.0, 0.5, 30).at_chance
    assert auc_figure(1.0, 1.0, 1.0, np.array([1, 0, 0])).at_chance
    assert not auc_figure(1.0, 1.0, 1.0, np.arange(30) % 2).at_chance
    nothing = float("nan")
    assert not Figure("x", nothing, nothing, nothing, 0.5).at_chance


def test_accuracy_alone_at_chance_gives_a_warning_about_class_balance() -> None:
    accuracy, auc = Figure("accuracy", 0.91, 0.85, 0.95, 0.9), Figure("auc", 0.9, 0.8, 0.95, 0.5)
    (line,) = chance_warning([accuracy, auc], "change train.steps")
    assert "balanced=true" in line
    assert "auc is above chance" in line
    assert "train.steps" not in line
    (line,) = chance_warning([accuracy, Figure("auc", 0.5, 0.4, 0.6, 0.5)], "change train.steps")
    assert "train.steps" in line
    assert chance_warning([auc], "") == chance_warning([], "") == []


def test_a_label_that_an_untrained_network_solves_gives_a_warning() -> None:
    def rows(*values: float) -> list[Figure]:
        names = ("fused", "rgb", "audio")
        return [
            accuracy_figure(name, value, value - 0.05, value + 0.05, 0.5, 200)
            for name, value in zip(names, values, strict=True)
        ]

    (line,) = untrained_warning(rows(1.0, 1.0, 0.5), rows(0.95, 1.0, 0.5))
    assert "solves this label (rgb 1.000" in line
    assert "background" in line
    (line,) = untrained_warning(rows(0.72, 0.7, 0.5), rows(0.7, 0.65, 0.5))
    assert "no measurable gain" in line
    # No warning well above the untrained network, or if the untrained network is at chance.
    assert untrained_warning(rows(0.88, 0.85, 0.5), rows(0.6, 0.62, 0.5)) == []
    assert untrained_warning(rows(0.5, 0.5, 0.5), rows(0.5, 0.5, 0.5)) == []
