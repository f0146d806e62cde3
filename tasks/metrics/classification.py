"""Figures of merit for actions and for one class to find, and their intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

Array = NDArray[Any]


def top_k_accuracy(probabilities: Array, labels: Array, k: int = 1) -> float:
    """Share of rows whose label is among the k most probable classes; probabilities (n, C), labels (n,)."""
    _check(probabilities, labels, probabilities.shape[1])
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(guessed: Array, labels: Array, classes: int) -> NDArray[np.int64]:
    """Counts (C, C), rows the truth, columns the guess."""
    _check(guessed, labels, classes)
    pairs = np.asarray(labels) * classes + np.asarray(guessed)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_recalls(guessed: Array, labels: Array, classes: int) -> NDArray[np.float64]:
    """Share of each class's rows (C,) that were guessed right; NaN for a class that does not occur."""
    counts = confusion(guessed, labels, classes)
    occurring = counts.sum(axis=1)
    return np.where(occurring > 0, counts.diagonal() / np.maximum(occurring, 1), np.nan)


def mean_class_accuracy(probabilities: Array, labels: Array) -> float:
    """Mean of the recalls of the classes that occur."""
    _check(probabilities, labels, probabilities.shape[1])
    return float(np.nanmean(class_recalls(probabilities.argmax(axis=1), labels, probabilities.shape[1])))


def roc_auc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve of scores (n,) for a binary truth (n,); NaN where only one class occurs.

    The share of pairs of a positive and a negative in which the positive scores higher, ties for a half, by ranks
    (Mann and Whitney 1947): a bootstrap asks for it thousands of times.
    """
    _check(scores, positive)
    positive = np.asarray(positive, bool)
    found = int(positive.sum())
    pairs = found * (len(positive) - found)
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - found * (found + 1) / 2) / pairs) if pairs else float("nan")


def average_precision(scores: Array, positive: Array) -> float:
    """Area under the precision-recall curve, as steps: precision at each threshold, weighed by the recall it adds.

    NaN where no row is positive.
    """
    _check(scores, positive)
    order = np.argsort(-np.asarray(scores), kind="stable")
    ordered, hits = np.asarray(scores)[order], np.cumsum(np.asarray(positive, bool)[order])
    if not hits[-1]:
        return float("nan")
    # Rows of one score are found together.
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    return float((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum() / hits[-1])


def average_precisions(scores: Array, truth: Array) -> NDArray[np.float64]:
    """The same of each class (C,), of scores and binary truth (n, C)."""
    return np.array([average_precision(*columns) for columns in zip(scores.T, truth.T, strict=True)])


def action_metrics(probabilities: Array, labels: Array) -> dict[str, float]:
    """`accuracy`, `top5_accuracy` where there are more than five classes, `mean_class_accuracy`."""
    figures = {"accuracy": top_k_accuracy(probabilities, labels)}
    if probabilities.shape[1] > 5:
        figures["top5_accuracy"] = top_k_accuracy(probabilities, labels, 5)
    return figures | {"mean_class_accuracy": mean_class_accuracy(probabilities, labels)}


def violence_metrics(
    scores: Array, positive: Array, names: tuple[str, str], threshold: float = 0.5
) -> dict[str, float]:
    """Accuracy, F1 and recall of each class at `threshold`; ROC AUC and average precision over all thresholds.

    Scores (n,), truth (n,) of 0 and 1; `names`: identifiers of the classes 0 and 1, whose recalls are
    `recall_NAME`. NaN where the truth leaves a figure undefined.
    """
    positive = np.asarray(positive).astype(int)
    _check(scores, positive, 2)
    guessed = (scores >= threshold).astype(int)
    recalls = class_recalls(guessed, positive, 2).tolist()
    told = int(guessed.sum() + positive.sum())
    return {
        "accuracy": float((guessed == positive).mean()),
        "auc": roc_auc(scores, positive),
        "average_precision": average_precision(scores, positive),
        "f1": 2 * int((guessed & positive).sum()) / told if positive.any() else float("nan"),
        f"recall_{names[1]}": recalls[1],
        f"recall_{names[0]}": recalls[0],
    }


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if count < 1:
        raise ValueError("no samples to score")
    interval = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float], groups: Sequence[str] | Array, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `statistic(row numbers)`, drawing whole groups (n,) with replacement.

    Clips of one recording are not independent: drawing clips would make the interval too narrow. Draws in which
    the statistic is undefined are left out.
    """
    if not len(groups):
        raise ValueError("no samples to score")
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    order, sizes = np.argsort(numbers, kind="stable"), np.bincount(numbers)
    starts = np.cumsum(sizes) - sizes
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = generator.integers(0, len(names), len(names))
        # Each drawn group is the run of `order` from its start, laid end to end.
        lengths = sizes[drawn]
        shifts = starts[drawn] - (np.cumsum(lengths) - lengths)
        values.append(statistic(order[np.repeat(shifts, lengths) + np.arange(lengths.sum())]))
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _check(scores: Array, labels: Array, classes: int | None = None) -> None:
    if not len(labels):
        raise ValueError("no samples to score")
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} rows of scores, {len(labels)} labels")
    if not np.isfinite(scores).all():
        raise ValueError("some scores are not finite")
    if classes is not None and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, there are {classes} classes")
