"""Metrics, intervals and figures of scores with a known answer."""

import numpy as np
import pytest
from modalgate.tasks.evaluation.score_summary import draw_figures, judge, split_line
from modalgate.tasks.evaluation.scores import Scores, join_scores
from modalgate.tasks.records import Confusion, Curves, Gates


def scores(violent: list[float], labels: list[int], keys: str) -> Scores:
    rows = np.array([[1 - value, value] for value in violent], np.float32)
    weights = np.array([[0.25, 0.75] if label else [0.5, 0.5] for label in labels], np.float32)
    return Scores(rows, weights, np.array(labels), list(keys))


def test_folds_are_pooled() -> None:
    pooled = join_scores([scores([0.9, 0.2], [1, 0], "ab"), scores([0.4, 0.3], [1, 0], "cd")])
    assert pooled.keys == list("abcd")
    metrics, intervals = judge(pooled, ["no fall", "fall"], 1, ["x", "x", "y", "y"])
    assert metrics["accuracy"] == pytest.approx(0.75)
    assert metrics["auc"] == pytest.approx(1.0)
    assert {name: value for name, value in metrics.items() if "recall" in name} == {
        "recall_fall": 0.5,
        "recall_no_fall": 1.0,
    }
    assert set(intervals) == {"accuracy", "auc", "average_precision"}
    # Two groups with accuracies 1 and 1/2: every draw gives 0.5, 0.75 or 1.
    assert intervals["accuracy"] == (0.5, 1.0)


def test_actions_have_no_auc() -> None:
    metrics, intervals = judge(scores([0.9, 0.2], [1, 0], "ab"), ["no", "yes"], None, ["a", "b"])
    assert metrics["accuracy"] == 1.0
    assert set(intervals) == {"accuracy", "mean_class_accuracy"}


def test_figures_of_two_classes() -> None:
    confusion, gates, curves, precision = draw_figures(
        scores([0.9, 0.2, 0.6, 0.4], [1, 0, 0, 1], "abcd"), ["calm", "fight"], 1, ["rgb", "audio"]
    )
    assert isinstance(confusion, Confusion)
    assert confusion.matrix == [[1, 1], [1, 1]]
    assert isinstance(curves, Curves)
    assert curves.series["fight"][0] == (0.0, 0.0)
    assert curves.series["fight"][-1] == (1.0, 1.0)
    assert isinstance(precision, Curves)
    # By descending score: fight, calm, fight, calm.
    expected = [(0, 1), (0.5, 1), (0.5, 0.5), (1, 2 / 3), (1, 0.5)]
    np.testing.assert_allclose(precision.series["fight"], expected)
    assert isinstance(gates, Gates)
    assert gates.weights == [[0.5, 0.5], [0.25, 0.75]]


def test_a_class_without_clips_is_omitted() -> None:
    figures = draw_figures(scores([0.9], [1], "a"), ["calm", "fight"], 1, ["rgb", "audio"])
    assert [type(figure) for figure in figures] == [Confusion, Gates]
    assert figures[1].groups == ["fight"]  # pyright: ignore[reportAttributeAccessIssue]


def test_few_classes_each_have_curves() -> None:
    labels = np.arange(30) % 3
    chances = np.full((30, 3), 0.1, np.float32)
    chances[np.arange(30), labels] = 0.8
    chances[2] = (0.8, 0.1, 0.1)
    scored = Scores(chances, np.ones((30, 1), np.float32), labels, [f"clip-{number}" for number in range(30)])
    _, _, roc, precision = draw_figures(scored, ["a", "b", "c"], None, ["rgb"])
    assert isinstance(roc, Curves)
    assert isinstance(precision, Curves)
    assert list(roc.series) == list(precision.series) == ["a", "b", "c"]
    assert (0.0, 1.0) in roc.series["b"]
    assert (1.0, 1.0) in precision.series["b"]
    assert precision.series["a"][1] == pytest.approx((1.0, 10 / 11))
    many = Scores(np.eye(9, dtype=np.float32), np.ones((9, 1), np.float32), np.arange(9), list("abcdefghi"))
    assert [type(figure) for figure in draw_figures(many, list("abcdefghi"), None, ["rgb"])] == [Confusion, Gates]


def test_several_classes_per_clip_have_curves_and_gates_but_no_confusion() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
    chances = np.array([[0.9, 0.8, 0.1], [0.7, 0.9, 0.1], [0.2, 0.1, 0.1], [0.1, 0.6, 0.1]], np.float32)
    weights = np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 1]], np.float32)
    scored = Scores(chances, weights, truth, list("abcd"))
    metrics, intervals = judge(scored, ["run", "shout", "never"], None, list("abcd"))
    # The second class ranks false, true, true: precision 1/2 and 2/3 at its two clips.
    assert metrics["mean_average_precision"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert metrics["micro_f1"] == pytest.approx(2 * 4 / (5 + 4))
    assert metrics["macro_f1"] == pytest.approx((1 + 4 / 5 + 0) / 3)
    assert set(intervals) == set(metrics)
    gates, roc, precision = draw_figures(scored, ["run", "shout", "never"], None, ["rgb", "audio"])
    assert isinstance(gates, Gates)
    assert (gates.groups, gates.weights) == (["run", "shout"], [[0.75, 0.25], [0.5, 0.5]])
    assert isinstance(roc, Curves)
    assert isinstance(precision, Curves)
    assert list(roc.series) == list(precision.series) == ["run", "shout"]
    assert (0.0, 1.0) in roc.series["run"]
    assert (0.0, 1.0) not in roc.series["shout"]


def test_a_split_line_shows_metrics_and_chance() -> None:
    three = scores([0.9, 0.2, 0.4], [1, 0, 1], "abc")
    line = split_line("fold-0", three, ["no fall", "fall"], 1)
    assert line == "fold-0: 3 clips, accuracy 0.667 (chance 0.667), AUC 1.000 (chance 0.500)"
    assert split_line("camera-1", three, ["no", "yes"], None) == "camera-1: 3 clips, accuracy 0.667 (chance 0.667)"
    # With one class the AUC is undefined.
    assert "AUC" not in split_line("fold-1", scores([0.9], [1], "a"), ["no", "yes"], 1)
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]])
    several = Scores(truth.astype(np.float32), np.ones((4, 1), np.float32), truth, list("abcd"))
    line = split_line("fold-0", several, ["run", "shout", "never"], None)
    assert line == "fold-0: 4 clips, mean average precision 1.000 (chance 0.375)"
