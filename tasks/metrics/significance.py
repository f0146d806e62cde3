"""Paired significance tests between models: on the same clips, over seeds, and corrected for many comparisons.

Clips of one group are not independent, so `paired_test` exchanges the models in whole groups. Only if every clip is a
group of its own it is McNemar's test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Array = NDArray[Any]

# With fewer groups a bootstrap over groups is too narrow, so differences are tested by `sign_flip`.
FEW_GROUPS = 10
# With up to this number of groups `sign_flip` tries every combination.
MOST_EXACT = 12


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


def sign_flip(
    difference: Callable[[NDArray[np.bool_]], float],
    groups: Sequence[str] | Array,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Returns the two-sided p value that two models are exchangeable within every group.

    In each flip the models exchange their results in some groups. p is the share of flips whose difference is at
    least as far from zero as that without flips. Up to 12 groups, all 2^G flips are tried. More groups take `draws`
    random flips, and p is at least `1 / (draws + 1)`. G groups cannot give a p below `2 / 2^G`.

    - `difference(exchanged)`: the difference of the models if they exchange their results on the clips where
      `exchanged` (n,) is true.
    - `groups` (n,): group of each clip.

    A p value is NaN if the difference is not finite. Flips without a finite difference do not count. Raises
    `ValueError` without clips.

    >>> gain = np.array([1, 1, 0, 1])
    >>> sign_flip(lambda exchanged: float(np.where(exchanged, -gain, gain).mean()), ["a", "b", "c", "d"])
    0.25
    """
    if not len(groups):
        raise ValueError("no clips: give the group of every clip")
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    exact = len(names) <= MOST_EXACT
    generator = np.random.default_rng(seed)
    flips = product((False, True), repeat=len(names)) if exact else generator.random((draws, len(names))) < 0.5
    found = abs(difference(np.zeros(len(numbers), bool)))
    if not np.isfinite(found):
        return float("nan")
    sizes = np.abs([difference(np.asarray(flip)[numbers]) for flip in flips])
    sizes = sizes[np.isfinite(sizes)]
    # Sums in another order differ in the last digits.
    reached = int((sizes >= found - 1e-12).sum())
    return reached / len(sizes) if exact else (reached + 1) / (len(sizes) + 1)


def paired_test(first: Array, second: Array, groups: Sequence[str] | Array) -> float:
    """Returns the two-sided p value that two models are right equally often.

    In every group the models may exchange their answers, as in `sign_flip`. All flips count, for any number of
    groups. If every clip is a group of its own this is McNemar's test. McNemar's test takes clips as independent:
    with groups it finds differences that are not there.

    - `first`, `second` (n,): whether each model is right on each clip.
    - `groups` (n,): group of each clip.

    Raises `ValueError` for unequal lengths, and without clips.

    >>> paired_test(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 0]), ["a", "a", "b", "b"])
    0.5
    """
    if len(set(groups)) == len(groups):
        return mcnemar(first, second)
    gain = np.asarray(second, int) - np.asarray(first, int)
    if len(gain) != len(groups):
        raise ValueError(f"{len(gain)} answers, but {len(groups)} groups: give the group of every clip")
    sums = np.zeros(len(groups), int)
    np.add.at(sums, np.unique(np.asarray(groups), return_inverse=True)[1], gain)
    # The distribution of the sum over all flips: entry i is the probability of the sum i - reach.
    reach = int(np.abs(sums).sum())
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for size in np.abs(sums[sums != 0]):
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    return float(min(chances[np.abs(np.arange(-reach, reach + 1)) >= abs(int(gain.sum()))].sum(), 1.0))


def which_test(groups: Sequence[str] | Array) -> str:
    """Returns the name of the test that `paired_test` uses."""
    count = len(set(groups))
    if count == len(groups):
        return "McNemar, exact"
    return f"sign flips over the {count} groups, exact"


def few_groups_note(groups: Sequence[str] | Array, tested: bool = True) -> str:
    """Returns a sentence about intervals and p values from fewer than `FEW_GROUPS` groups. Empty for more groups.

    - `tested`: whether the table has p values.

    >>> few_groups_note(["a", "a", "b", "c", "d"])
    ' Only 4 groups: a 95 % percentile interval is too narrow (of four groups about 83 %), and no p is below 0.125.'
    """
    count = len(set(groups))
    if count >= FEW_GROUPS:
        return ""
    least = f", and no p is below {min(2 / 2**count, 1.0):.3g}" if tested else ""
    return (
        f" Only {count} group{'s' * (count > 1)}: a 95 % percentile interval is too narrow (of four groups about "
        f"83 %){least}."
    )


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

    A NaN, of a test without a result, stays NaN and is not counted. Raises `ValueError` for values outside 0..1.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, float)
    known = np.isfinite(values)
    if not ((values[known] >= 0) & (values[known] <= 1)).all():
        raise ValueError("p values must lie between 0 and 1")
    # NaN is sorted to the end.
    order = np.argsort(values, kind="stable")[: known.sum()]
    stepped = np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1))
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def paired_bootstrap(
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
