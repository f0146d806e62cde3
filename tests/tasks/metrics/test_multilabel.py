"""Clips with several classes: reading the truth, and metrics against scikit-learn and loops."""

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, Sample
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.tasks.metrics.classification import average_precisions
from modalgate.tasks.metrics.multilabel import (
    STRATUM,
    class_thresholds,
    labelled_clips,
    mean_average_precision,
    multilabel_metrics,
)
from modalgate.tasks.splits.split_plan import SplitPlan, plan_splits
from sklearn.metrics import average_precision_score, f1_score

GENERATOR = np.random.default_rng(0)
TRUTH = (GENERATOR.random((90, 4)) < [0.5, 0.3, 0.1, 0.05]).astype(int)
SCORES = np.clip(TRUTH * 0.3 + GENERATOR.random((90, 4)) * 0.7, 0, 1)


def index(*texts: str) -> Index:
    samples = tuple(Sample(f"c{n}", "s.tar", 1.0, {"tags": text}, {}) for n, text in enumerate(texts))
    return Index(PackSettings(), {}, (), samples)


def test_truth_has_a_row_per_labelled_clip_and_a_column_per_class() -> None:
    clips = labelled_clips(index("b|a", "", "c", "|", "a"), "tags", multilabel=True)
    assert clips.classes == ["a", "b", "c"]
    assert [sample.key for sample in clips.index.samples] == ["c0", "c2", "c3", "c4"]
    assert clips.labels.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert clips.index.column(STRATUM) == ["b", "c", "none", "a"]
    some = labelled_clips(index("b|a", "", "c", "|", "a"), "tags", multilabel=True, classes=["c", "b"])
    assert some.labels.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]
    assert some.index.column("tags") == ["b", "c", "|", "|"]


def test_too_few_or_unknown_classes_raise() -> None:
    with pytest.raises(RequestError, match="fewer than two classes"):
        labelled_clips(index("a", "|"), "tags", multilabel=True)
    with pytest.raises(RequestError, match="known: a, b"):
        labelled_clips(index("a|b"), "tags", multilabel=True, classes=["A", "b"])
    with pytest.raises(RequestError, match="multilabel"):
        labelled_clips(index("a", "b"), "tags", ["x", "y"])


def test_metrics_equal_scikit_learn() -> None:
    expected = [average_precision_score(TRUTH[:, number], SCORES[:, number]) for number in range(4)]
    np.testing.assert_allclose(average_precisions(SCORES, TRUTH), expected)
    # Rounding makes many scores equal.
    tied = SCORES.round(1)
    expected_tied = [average_precision_score(TRUTH[:, number], tied[:, number]) for number in range(4)]
    np.testing.assert_allclose(average_precisions(tied, TRUTH), expected_tied)
    thresholds = np.array([0.5, 0.4, 0.6, 0.9])
    found = multilabel_metrics(SCORES, TRUTH, thresholds)
    assert found["mean_average_precision"] == pytest.approx(np.mean(expected))
    for average in ("micro", "macro"):
        assert found[f"{average}_f1"] == pytest.approx(f1_score(TRUTH, thresholds <= SCORES, average=average))


def test_the_mean_skips_classes_that_do_not_occur() -> None:
    truth = TRUTH * [1, 1, 1, 0]
    assert np.isnan(average_precisions(SCORES, truth)[3])
    assert mean_average_precision(SCORES, truth) == pytest.approx(mean_average_precision(SCORES[:, :3], TRUTH[:, :3]))
    assert np.isnan(mean_average_precision(SCORES, TRUTH * 0))
    assert class_thresholds(SCORES, truth)[3] == 0.5


def test_class_thresholds_have_the_best_f1() -> None:
    chosen = class_thresholds(SCORES, TRUTH)
    for number, threshold in enumerate(chosen):
        best = max(f1_score(TRUTH[:, number], SCORES[:, number] >= t) for t in SCORES[:, number])
        assert f1_score(TRUTH[:, number], SCORES[:, number] >= threshold) == pytest.approx(best)


def test_folds_share_the_rare_class() -> None:
    texts = ["common|rare" if n % 10 == 0 else "common" if n % 2 else "|" for n in range(100)]
    clips = labelled_clips(index(*texts), "tags", multilabel=True)
    splits = plan_splits(clips.index, clips.strata, SplitPlan(folds=5))
    rare = clips.classes.index("rare")
    assert [int(clips.labels[split.test, rare].sum()) for split in splits] == [2] * 5
