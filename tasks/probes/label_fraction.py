"""How few labels a frozen encoder needs: the label-fraction curve, and few-shot episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .knn import unit_rows
from .linear_probe import fit_linear_probe

FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)


@dataclass(frozen=True)
class FractionPoint:
    """Test accuracy with a share of the labels: `mean` and `std` over draws of which `clips` clips keep theirs."""

    fraction: float
    clips: int
    mean: float
    std: float


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
    """Accuracy of the linear probe on test (m, D) fitted on a share of train (n, D), stratified by class.

    Every class keeps at least one clip; smaller draws lie inside larger ones of the same number, so the curve is not
    the luck of other clips. Scaling needs no labels: it is that of all train clips. `groups` (n,) keep together in
    the inner folds that choose the regulariser. All clips need one draw. Raises `ValueError` for a fraction outside
    (0, 1].
    """
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions {tuple(fractions)}: give shares above 0 and at most 1")
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
    """Mean accuracy over episodes, and half its 95 % interval, of the nearest class mean by cosine.

    An episode draws `ways` classes, `shots` labelled clips and up to `queries` others of each (Snell et al.,
    "Prototypical Networks", 2017). Raises `ValueError` where too few classes have a clip to spare.
    """
    members = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    able = [c for c, rows in members.items() if len(rows) > shots]
    if len(able) < ways:
        raise ValueError(f"{len(able)} classes have more than {shots} clips, episodes of {ways} classes need as many")
    unit, generator, right = unit_rows(features), np.random.default_rng(seed), []
    for _ in range(episodes):
        drawn = generator.choice(able, ways, replace=False)
        rows = [generator.permutation(members[c])[: shots + queries] for c in drawn]
        prototypes = unit_rows(np.stack([unit[row[:shots]].mean(axis=0) for row in rows]))
        guessed = [(unit[row[shots:]] @ prototypes.T).argmax(axis=1) for row in rows]
        right.append(np.concatenate([guess == place for place, guess in enumerate(guessed)]).mean())
    return float(np.mean(right)), float(1.96 * np.std(right) / np.sqrt(episodes))


def _share(order: NDArray[np.int64], labels: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """The first `fraction` of every class in `order`, at least one clip each."""
    kept = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        kept.append(rows[: max(round(fraction * len(rows)), 1)])
    return np.sort(np.concatenate(kept))
