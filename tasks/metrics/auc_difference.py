"""The paired difference of two models in a metric of rankings, such as AUC, with its test."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from .fold_means import Folds
from .significance import FEW_GROUPS, Difference, paired_bootstrap, sign_flip

Array = NDArray[Any]


def auc_difference(
    first: Array,
    second: Array,
    labels: Array,
    metric: Callable[[Array, Array], float],
    groups: Sequence[str] | Array,
    folds: tuple[Folds, Folds],
    draws: int = 10_000,
) -> Difference:
    """Returns the metric of `second` less that of `first`, averaged over folds and seeds, with interval and p value.

    The interval is a bootstrap over seeds and groups. So is p, if there are at least `FEW_GROUPS` groups. With fewer
    groups p comes from `sign_flip`: the models exchange the ranks of their scores in whole groups. Ranks are taken
    within a fold, so models whose scores have different scales can be exchanged.

    - `first`, `second` (S, n, C): scores of each model, by seed.
    - `labels` (n,): class numbers.
    - `metric(scores (m, C), labels (m,))`: depends only on the order of the scores in every column.
    - `groups` (n,): group of each clip.
    - `folds`: of each model. Every model has its own mean over folds.
    """

    def difference(mine: Array, theirs: Array, rows: NDArray[np.int64] | None, seed: int) -> float:
        found, other = (
            divided.mean(lambda part, scores=scores: metric(scores[seed, part], labels[part]), rows)
            for scores, divided in zip((mine, theirs), folds, strict=True)
        )
        return float(other - found)

    found = paired_bootstrap(lambda rows, seed: difference(first, second, rows, seed), groups, len(first), draws)
    if len(set(groups)) >= FEW_GROUPS:
        return found
    mine, theirs = (_ranked(*pair) for pair in zip((first, second), folds, strict=True))

    def exchanged(mask: NDArray[np.bool_]) -> float:
        swapped = mask[None, :, None]
        pair = np.where(swapped, theirs, mine), np.where(swapped, mine, theirs)
        return float(np.mean([difference(*pair, None, seed) for seed in range(len(first))]))

    return replace(found, p=sign_flip(exchanged, groups))


def auc_test(groups: Sequence[str] | Array) -> str:
    """Returns the name of the test of `auc_difference`."""
    count = len(set(groups))
    return "paired bootstrap over groups" if count >= FEW_GROUPS else f"sign flips over the {count} groups"


def _ranked(scores: Array, folds: Folds) -> NDArray[np.float64]:
    """Returns the rank of each score (S, n, C) within its fold."""
    ranks = np.empty(scores.shape)
    for fold in range(len(folds.sizes)):
        rows = folds.numbers == fold
        ranks[:, rows] = rankdata(scores[:, rows], axis=1)
    return ranks
