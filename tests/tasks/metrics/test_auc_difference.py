"""The paired difference of AUCs: planted gains, folds with other scales, and few groups."""

from itertools import product

import numpy as np
import pytest
from modalgate.tasks.metrics.auc_difference import auc_difference, auc_test
from modalgate.tasks.metrics.classification import roc_auc
from modalgate.tasks.metrics.fold_means import Folds
from modalgate.tasks.metrics.significance import paired_bootstrap


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    return roc_auc(scores[:, 0], labels == 1)


def planted(groups: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """A poor and a good model on the same clips."""
    generator = np.random.default_rng(seed)
    labels = np.tile([0, 1], groups * size // 2)
    poor = labels + 4.0 * generator.normal(size=len(labels))
    good = labels + 0.5 * generator.normal(size=len(labels))
    return poor[None, :, None], good[None, :, None], labels, np.repeat(np.arange(groups), size).astype(str).tolist()


def test_many_groups_are_tested_by_the_bootstrap() -> None:
    poor, good, labels, groups = planted(30, 6)
    whole = Folds.of([], len(labels))
    found = auc_difference(poor, good, labels, area, groups, (whole, whole), draws=300)
    plain = paired_bootstrap(
        lambda rows, _: area(good[0, rows], labels[rows]) - area(poor[0, rows], labels[rows]), groups, draws=300
    )
    assert found == plain
    assert found.p < 0.02
    assert auc_test(groups) == "paired bootstrap over groups"


def test_few_groups_exchange_the_ranks_of_whole_groups() -> None:
    poor, good, labels, groups = planted(5, 12)
    whole = Folds.of([], len(labels))
    # Probabilities of one model and margins of the other: only the order counts.
    found = auc_difference(1 / (1 + np.exp(-poor)), 100 * good, labels, area, groups, (whole, whole), draws=200)
    ranks = [scores[0, :, 0].argsort().argsort() for scores in (poor, good)]
    sizes = []
    for signs in product((False, True), repeat=5):
        swapped = np.repeat(signs, 12)
        pair = [np.where(swapped, ranks[1 - side], ranks[side]) for side in (0, 1)]
        sizes.append(abs(roc_auc(pair[1], labels) - roc_auc(pair[0], labels)))
    assert found.p == pytest.approx(np.mean(np.array(sizes) >= sizes[0] - 1e-12))
    assert found.p >= 2 / 2**5
    assert auc_test(groups) == "sign flips over the 5 groups"


def test_scores_of_two_folds_are_not_compared() -> None:
    labels = np.tile([0, 1], 20)
    fold = np.arange(40) // 20
    aligned = (0.2 * labels)[None, :, None]
    shifted = aligned + fold[None, :, None]
    folds = Folds.of(fold.astype(str), 40)
    keys = [str(number) for number in range(40)]
    found = auc_difference(aligned, shifted, labels, area, keys, (folds, folds), draws=100)
    assert (found.value, found.p) == (0, 1)


def test_seeds_are_averaged() -> None:
    poor, good, labels, groups = planted(12, 4)
    whole = Folds.of([], len(labels))
    first, second = np.concatenate([poor, good]), np.concatenate([good, good])
    found = auc_difference(first, second, labels, area, groups, (whole, whole), draws=200)
    assert found.value == pytest.approx((area(good[0], labels) - area(poor[0], labels)) / 2)
