"""Metrics, intervals and figures of scores with a known answer."""

import numpy as np
import pytest
from modalgate.tasks.evaluation.score_summary import chances_of, class_precisions, draw_figures, judge, split_line
from modalgate.tasks.evaluation.scores import Scores, join_folds, join_scores
from modalgate.tasks.metrics.classification import average_precision, roc_auc
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


def test_auc_and_average_precision_are_means_over_folds() -> None:
    """Each fold ranks its own clips in part right. The second fold scores all its clips higher."""
    first, second = [0.1, 0.2, 0.3, 0.4], [0.6, 0.8, 0.7, 0.9, 0.65]
    truth = [[0, 0, 1, 1], [0, 1, 1, 0, 1]]
    parts = [scores(first, truth[0], "abcd"), scores(second, truth[1], "efghi")]
    joined = join_folds(["fold-0", "fold-1"], parts)
    assert joined.folds == ["fold-0"] * 4 + ["fold-1"] * 5
    metrics, intervals = judge(joined, ["calm", "fight"], 1, joined.keys)
    # Of the second fold's six pairs three are ranked right.
    assert metrics["auc"] == pytest.approx((1 + 3 / 6) / 2)
    pooled = roc_auc(np.array(first + second), np.array(truth[0] + truth[1]))
    assert metrics["auc"] != pytest.approx(pooled)
    each = [average_precision(np.array(s), np.array(t)) for s, t in zip((first, second), truth, strict=True)]
    assert metrics["average_precision"] == pytest.approx(np.mean(each))
    assert intervals["auc"][0] < metrics["auc"] < intervals["auc"][1]
    assert metrics["accuracy"] == pytest.approx(5 / 9)
    assert chances_of(joined, 1)["average_precision"] == pytest.approx((0.5 + 0.6) / 2)
    titles = [figure.title for figure in draw_figures(joined, ["calm", "fight"], 1, ["rgb", "audio"])]
    assert titles[2:] == ["ROC, folds pooled", "Precision and recall, folds pooled"]


def test_mean_average_precision_of_several_classes_is_a_mean_over_folds() -> None:
    generator = np.random.default_rng(0)
    truth, chances = generator.integers(0, 2, (40, 3)), generator.random((40, 3)).astype(np.float32)
    # The third class occurs in the first fold only.
    truth[20:, 2] = 0
    folds = ["one"] * 20 + ["two"] * 20
    several = Scores(chances, np.ones((40, 1), np.float32), truth, [str(n) for n in range(40)], folds)
    expected = [
        np.mean([average_precision(chances[rows, c], truth[rows, c]) for rows in halves])
        for c, halves in ((0, (slice(20), slice(20, 40))), (1, (slice(20), slice(20, 40))), (2, (slice(20),)))
    ]
    np.testing.assert_allclose(class_precisions(several), expected)
    metrics, intervals = judge(several, ["a", "b", "c"], None, several.keys)
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(expected))
    assert intervals["mean_average_precision"][0] < np.mean(expected) < intervals["mean_average_precision"][1]
    shares = [truth[:20, 0].mean() + truth[20:, 0].mean(), truth[:20, 1].mean() + truth[20:, 1].mean()]
    chance = (shares[0] / 2 + shares[1] / 2 + truth[:20, 2].mean()) / 3
    assert chances_of(several, None)["mean_average_precision"] == pytest.approx(chance)
