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
) -> tuple[float, float]:
    """Returns the mean accuracy over few-shot episodes, and half the width of its 95 % interval.

    An episode draws `ways` classes. Each class gives `shots` labelled clips and up to `queries` others, which are
    assigned to the nearest class mean by cosine (Snell et al., "Prototypical Networks", 2017).

    - `features` (n, D)
    - `labels` (n,): class numbers.

    Raises `ValueError` if fewer than `ways` classes have more than `shots` clips.
    """
    members = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    able = [c for c, rows in members.items() if len(rows) > shots]
    if len(able) < ways:
        raise ValueError(f"{len(able)} classes have more than {shots} clips, but episodes need {ways} such classes")
    unit, generator, right = unit_rows(features), np.random.default_rng(seed), []
    for _ in range(episodes):
        drawn = generator.choice(able, ways, replace=False)
        rows = [generator.permutation(members[c])[: shots + queries] for c in drawn]
        prototypes = unit_rows(np.stack([unit[row[:shots]].mean(axis=0) for row in rows]))
        guessed = [(unit[row[shots:]] @ prototypes.T).argmax(axis=1) for row in rows]
        right.append(np.concatenate([guess == place for place, guess in enumerate(guessed)]).mean())
    return float(np.mean(right)), float(1.96 * np.std(right) / np.sqrt(episodes))


def _share(order: NDArray[np.int64], labels: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Returns the first `fraction` of each class in `order`, at least one clip each."""
    kept = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        kept.append(rows[: max(round(fraction * len(rows)), 1)])
    return np.sort(np.concatenate(kept))
