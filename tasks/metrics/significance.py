"""Whether one model beats another: paired tests on the same clips, over seeds, and over many comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """`value` of a paired difference, its 95 % interval from `low` to `high`, and the two-sided `p`."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(first: Array, second: Array) -> float:
    """Exact two-sided p that two models err alike; `first`, `second` (n,) bool: the same clips guessed right.

    Only discordant clips speak: `p = min(1, 2 sum_(i <= min) C(n, i) / 2^n)` (McNemar 1947). Seeds must not be pooled
    as if they were clips: a clip would count once per seed. Raises `ValueError` for unequal lengths or no clips.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or not first.size:
        raise ValueError(f"{first.shape} and {second.shape} answers: give both models' answers to the same clips")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return _two_sided(min(only_first, only_second), only_first + only_second)


def sign_test(differences: Sequence[float] | Array) -> float:
    """Exact two-sided p that differences, one per seed or fold, are as often below zero as above; ties are left out.

    Five that agree reach .0625 and no less; six reach .031. Raises `ValueError` where one is not finite.
    """
    values = np.asarray(differences, float)
    if not np.isfinite(values).all():
        raise ValueError("some differences are not finite")
    above, below = int((values > 0).sum()), int((values < 0).sum())
    return _two_sided(min(above, below), above + below)


def holm(p_values: Sequence[float] | Array) -> NDArray[np.float64]:
    """p values (m,) adjusted for the family they were tested in, in their own order (Holm 1979).

    The i-th smallest is multiplied by `m - i`, made monotone and cut at 1: the chance of any false claim stays at the
    level. Raises `ValueError` outside 0..1.
    """
    values = np.asarray(p_values, float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p values lie between 0 and 1")
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
    """Bootstrap over seeds and groups of clips of `statistic(row numbers, seed number)`, a difference of two models.

    Both models are read at the same rows and seeds, so what is common to them cancels. A group (n,) is drawn whole;
    `p` is twice the smaller share of draws on either side of zero. Raises `ValueError` for no clips or no seeds.
    """
    if not len(groups) or seeds < 1:
        raise ValueError("nothing to draw from: give the groups of the clips and at least one seed")
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
    # One more than counted: a p of zero would claim more than the draws can show.
    sides = [(np.sum(values <= 0) + 1) / (len(values) + 1), (np.sum(values >= 0) + 1) / (len(values) + 1)]
    return Difference(whole, float(low), float(high), float(min(1.0, 2 * min(sides))))


def _two_sided(smaller: int, count: int) -> float:
    return float(binomtest(smaller, count).pvalue) if count else 1.0
