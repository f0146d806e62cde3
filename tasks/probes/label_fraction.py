"""Accuracy with few labels: label-fraction curves and few-shot episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .knn import unit_rows
from .linear_probe import fit_linear_probe

FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)


@dataclass(frozen=True)
class FractionPoint:
    """Test accuracy with a share of the labels."""

    fraction: float
    clips: int
    """Number of labelled clips."""
    mean: float
    """Mean over random draws of these clips."""
    std: float
    """Standard deviation over draws."""


def label_fraction_curve(
    train: NDArray[np.floating],
    train_labels: NDArray[np.int64],
    test: NDArray[np.floating],
    test_labels: NDArray[np.int64],
    classes: int,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = 5,
    seed: int = 0,
    groups: NDArray[np.str_] | None = None,
) -> list[FractionPoint]:
    """Returns the accuracy of the linear probe for each share of the training labels, stratified by class.

    Every class keeps at least one clip. Smaller draws are subsets of larger ones with the same number, which reduces
    noise along the curve. Features are scaled by all training clips, since scaling needs no labels. A share of 1
    takes one draw.

    - `train` (n, D), `train_labels` (n,), `test` (m, D), `test_labels` (m,).
    - `groups` (n,): groups that stay together in the inner folds that choose the regulariser.

    Raises `ValueError` for a fraction outside (0, 1].
    """
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions are {tuple(fractions)}: each must be above 0 and at most 1")
    orders = [np.random.default_rng([seed, draw]).permutation(len(train)) for draw in range(draws)]
    points = []
    for fraction in fractions:
        right, count = [], len(train)
        for order in orders[:1] if fraction == 1 else orders:
            kept = _share(order, train_labels, fraction)
            named = None if groups is None else groups[kept]
            probe = fit_linear_probe(train[kept], train_labels[kept], classes, groups=named, scale_by=train)
            right.append(float((probe.scores(test).argmax(axis=1) == test_labels).mean()))
            count = len(kept)
        points.append(FractionPoint(fraction, count, float(np.mean(right)), float(np.std(right))))
    return points


def few_shot_accuracy(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    ways: int = 5,
    shots: int = 1,
    queries: int = 5,
    episodes: int = 600,
    seed: int = 0,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
) -> tuple[float, float] | None:
    """Returns the mean accuracy over few-shot episodes, and half the width of its 95 % interval.

    An episode draws `ways` classes. Each class gives `shots` labelled clips and up to `queries` others, which are
    assigned to the nearest class mean by cosine (Snell et al., "Prototypical Networks", 2017). No query shares a
    group with a labelled clip of the episode, of any class. The labelled clips of a class are from different groups,
    if it has enough of them. Episodes in which a class keeps no query are skipped.

    - `features` (n, D)
    - `labels` (n,): class numbers.
    - `groups` (n,): group of each clip. None: each clip is its own group.

    Returns None if every episode is skipped. Raises `ValueError` if `able_classes` gives fewer than `ways` classes.
    """
    units = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    able = able_classes(labels, shots, units)
    if len(able) < ways:
        raise ValueError(
            f"{len(able)} classes have more than {shots} clips, with a query in another group: episodes need {ways} "
            "such classes"
        )
    members = {c: np.flatnonzero(labels == c) for c in able}
    unit, generator, right = unit_rows(features), np.random.default_rng(seed), []
    for _ in range(episodes):
        rows = [generator.permutation(members[c]) for c in generator.choice(able, ways, replace=False)]
        support = _support(rows, units, shots, generator)
        if support is None:
            continue
        taken = units[np.concatenate(support)]
        prototypes = unit_rows(np.stack([unit[given].mean(axis=0) for given in support]))
        asked = [row[~np.isin(units[row], taken)][:queries] for row in rows]
        guessed = [(unit[row] @ prototypes.T).argmax(axis=1) for row in asked]
        right.append(np.concatenate([guess == place for place, guess in enumerate(guessed)]).mean())
    if not right:
        return None
    return float(np.mean(right)), float(1.96 * np.std(right) / np.sqrt(len(right)))


def able_classes(labels: NDArray[np.int64], shots: int, groups: Sequence[str] | NDArray) -> list[int]:
    """Returns the classes that few-shot episodes can use: with `shots` clips outside of one of their groups.

    - `labels` (n,): class numbers.
    - `groups` (n,): group of each clip.
    """
    found = []
    for c in np.unique(labels):
        _, sizes = np.unique(np.asarray(groups)[labels == c], return_counts=True)
        if len(sizes) > 1 and sizes.sum() - sizes.min() >= shots:
            found.append(int(c))
    return found


def _support(
    rows: Sequence[NDArray[np.int64]], units: NDArray[np.int64], shots: int, generator: np.random.Generator
) -> list[NDArray[np.int64]] | None:
    """Returns the `shots` labelled clips of each class, or None if no class could have a query.

    - `rows`: clips of each class, in random order.
    - `units` (n,): group numbers.
    """
    kept: list[int] = []

    def left(row: NDArray[np.int64], groups: Sequence[int]) -> NDArray[np.int64]:
        return row[~np.isin(units[row], groups)]

    # Every class keeps one group for its queries. Classes share such groups, so that clips remain.
    for row in rows:
        own = np.unique(units[row])
        if np.isin(own, kept).any():
            continue
        free = [int(group) for group in own if len(left(row, [*kept, int(group)])) >= shots]
        if not free:
            return None
        kept.append(int(generator.choice(free)))
    found = []
    for row in rows:
        usable = left(row, kept)
        _, first = np.unique(units[usable], return_index=True)
        order = [*usable[np.sort(first)], *np.delete(usable, first)]
        found.append(np.array(order[:shots], np.int64))
    return found if all(len(given) == shots for given in found) else None


def _share(order: NDArray[np.int64], labels: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Returns the first `fraction` of each class in `order`, at least one clip each."""
    kept = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        kept.append(rows[: max(round(fraction * len(rows)), 1)])
    return np.sort(np.concatenate(kept))
