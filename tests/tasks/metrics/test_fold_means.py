"""Means over folds against explicit loops, for all clips and for bootstrap draws."""

import numpy as np
import pytest
from modalgate.tasks.metrics.classification import roc_auc
from modalgate.tasks.metrics.fold_means import Folds


def test_every_fold_counts_equally_and_a_draw_by_its_share() -> None:
    names = ["b", "a", "b", "b", "a", "c"]
    values = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 9.0])
    folds = Folds.of(names, 6)
    assert float(folds.mean(lambda rows: values[rows].mean())) == pytest.approx((3 + 4 + 9) / 3)
    # Fold b is drawn twice and a half as often, c not at all.
    drawn = np.array([0, 2, 3, 0, 2, 3, 1])
    assert float(folds.mean(lambda rows: values[rows].mean(), drawn)) == pytest.approx((2 * 3 + 0.5 * 2) / 2.5)


def test_one_fold_is_the_plain_metric() -> None:
    assert float(Folds.of([], 3).mean(lambda rows: rows.sum())) == 3
    assert Folds.of([], 3).note == ""
    assert "mean over 2 folds" in Folds.of(["a", "b"], 2).note


def test_folds_without_a_value_are_skipped_entry_by_entry() -> None:
    truth = np.array([1, 0, 1, 1])
    scores = np.array([0.9, 0.1, 0.4, 0.3])
    folds = Folds.of(["a", "a", "b", "b"], 4)
    assert float(folds.mean(lambda rows: roc_auc(scores[rows], truth[rows]))) == 1
    one_class = Folds.of(["a", "b", "c", "c"], 4)
    assert np.isnan(one_class.mean(lambda rows: roc_auc(scores[rows], truth[rows])))
    table = {0: [1.0, np.nan], 1: [3.0, 5.0]}
    found = Folds.of(["x", "y"], 2).mean(lambda rows: table[int(rows[0])])
    np.testing.assert_allclose(found, [2.0, 5.0])
