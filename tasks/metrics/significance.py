"""Paired significance tests between models: on the same clips, over seeds, and corrected for many comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """A paired difference of two models."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    p: float
    """Two-sided p value."""


def mcnemar(first: Array, second: Array) -> float:
    """Returns the exact two-sided p value that two models are right equally often (McNemar 1947).

    Only clips that exactly one model gets right count: `p = min(1, 2 sum_(i <= min) C(n, i) / 2^n)`. Do not pool
    seeds as if they were clips: each clip would count once per seed.

    - `first`, `second` (n,): whether each model is right on each clip.

    Raises `ValueError` for unequal lengths, and without clips.

    >>> mcnemar(np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0]))
    0.5
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or not first.size:
        raise ValueError(f"{first.shape} and {second.shape} predictions: both models must predict the same clips")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return _two_sided(min(only_first, only_second), only_first + only_second)


def sign_test(differences: Sequence[float] | Array) -> float:
    """Returns the exact two-sided p value that differences are above zero as often as below. Zeros do not count.

    Give one difference per seed or fold. Five that agree give 0.0625, six give 0.031.

    Raises `ValueError` if a difference is not finite.
    """
    values = np.asarray(differences, float)
    if not np.isfinite(values).all():
        raise ValueError("some differences are not finite: give one number per seed or fold")
    above, below = int((values > 0).sum()), int((values < 0).sum())
    return _two_sided(min(above, below), above + below)


def holm(p_values: Sequence[float] | Array) -> NDArray[np.float64]:
    """Returns the p values (m,) adjusted for m tests, in the given order (Holm 1979).

    The i-th smallest p value, from i = 0, is multiplied by `m - i`. The results are made monotone and cut at 1. This
    bounds the probability of any false positive by the significance level.

    Raises `ValueError` for values outside 0..1.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p values must lie between 0 and 1")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def paired_difference(
    statistic: Callable[[Array, int], float],
    groups: Sequence[str] | Array,
    seeds: int = 1,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Returns the difference of two models, with an interval and p value from a bootstrap over seeds and groups.

    - `statistic(row numbers, seed number)`: the difference of the models on these rows. Both models are evaluated on
      the same rows and seed, so variation that both share cancels.
    - `groups` (n,): group of each clip. Groups are drawn whole.
    - `seeds`: number of seeds.
    - `draws`: number of bootstrap samples.

    `p` is twice the smaller share of draws on either side of zero. Raises `ValueError` without clips or seeds.
    """
    if not len(groups) or seeds < 1:
        raise ValueError("no clips or no seeds: give the group of every clip and at least one seed")
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(numbers == number) for number in range(len(names))]
    generator = np.random.default_rng(seed)
    values = np.empty(draws)
    for draw in range(draws):
        rows = np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])
        values[draw] = np.mean([statistic(rows, int(s)) for s in generator.integers(0, seeds, seeds)])
    values = values[np.isfinite(values)]
    if not len(values):
        return Difference(float("nan"), float("nan"), float("nan"), float("nan"))
    whole = float(np.mean([statistic(np.arange(len(numbers)), number) for number in range(seeds)]))
    low, high = np.percentile(values, [2.5, 97.5])
    # Add one: a finite number of draws cannot show a p of zero.
    sides = [(np.sum(values <= 0) + 1) / (len(values) + 1), (np.sum(values >= 0) + 1) / (len(values) + 1)]
    return Difference(whole, float(low), float(high), float(min(1.0, 2 * min(sides))))


def _two_sided(smaller: int, count: int) -> float:
    return float(binomtest(smaller, count).pvalue) if count else 1.0
