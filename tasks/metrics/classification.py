"""Metrics for action classes and for one class to detect, with confidence intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

Array = NDArray[Any]


def top_k_accuracy(probabilities: Array, labels: Array, k: int = 1) -> float:
    """Returns the share of rows whose label is among the k most probable classes.

    - `probabilities` (n, C)
    - `labels` (n,): class numbers.

    Raises `ValueError` without rows, for unequal lengths, scores that are not finite, and labels outside 0..C-1.
    """
    _check(probabilities, labels, probabilities.shape[1])
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(guessed: Array, labels: Array, classes: int) -> NDArray[np.int64]:
    """Returns the confusion matrix (C, C): rows are true classes, columns are predicted classes.

    `guessed` and `labels` (n,) are class numbers. Raises `ValueError` as `top_k_accuracy` does.
    """
    _check(guessed, labels, classes)
    pairs = np.asarray(labels) * classes + np.asarray(guessed)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_recalls(guessed: Array, labels: Array, classes: int) -> NDArray[np.float64]:
    """Returns the recall of each class (C,). NaN for a class that does not occur.

    >>> class_recalls(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [0.5, 1.0]
    """
    counts = confusion(guessed, labels, classes)
    occurring = counts.sum(axis=1)
    return np.where(occurring > 0, counts.diagonal() / np.maximum(occurring, 1), np.nan)


def mean_class_accuracy(probabilities: Array, labels: Array) -> float:
    """Returns the mean recall of the classes that occur.

    - `probabilities` (n, C)
    - `labels` (n,): class numbers.
    """
    _check(probabilities, labels, probabilities.shape[1])
    return float(np.nanmean(class_recalls(probabilities.argmax(axis=1), labels, probabilities.shape[1])))


def roc_auc(scores: Array, positive: Array) -> float:
    """Returns the area under the ROC curve of scores (n,) for a binary truth (n,). NaN if only one class occurs.

    The AUC is the share of pairs of a positive and a negative in which the positive scores higher. A tie counts one
    half (Mann and Whitney 1947). It is computed from ranks, because a bootstrap calls it thousands of times.

    >>> roc_auc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([1, 1, 0, 0]))
    0.875
    """
    _check(scores, positive)
    positive = np.asarray(positive, bool)
    found = int(positive.sum())
    pairs = found * (len(positive) - found)
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - found * (found + 1) / 2) / pairs) if pairs else float("nan")


def average_precision(scores: Array, positive: Array) -> float:
    """Returns the average precision of scores (n,) for a binary truth (n,). NaN if no row is positive.

    This is the area under the stepwise precision-recall curve: the precision at each threshold, weighted by the
    recall it adds. Rows with equal scores share one threshold.
    """
    _check(scores, positive)
    order = np.argsort(-np.asarray(scores), kind="stable")
    ordered, hits = np.asarray(scores)[order], np.cumsum(np.asarray(positive, bool)[order])
    if not hits[-1]:
        return float("nan")
    # Rows with equal scores share one threshold.
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    return float((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum() / hits[-1])


def average_precisions(scores: Array, truth: Array) -> NDArray[np.float64]:
    """Returns the average precision of each class (C,), for scores and binary truth (n, C)."""
    return np.array([average_precision(*columns) for columns in zip(scores.T, truth.T, strict=True)])


def action_metrics(probabilities: Array, labels: Array) -> dict[str, float]:
    """Returns `accuracy`, `mean_class_accuracy` and, with more than five classes, `top5_accuracy`.

    - `probabilities` (n, C)
    - `labels` (n,): class numbers.
    """
    figures = {"accuracy": top_k_accuracy(probabilities, labels)}
    if probabilities.shape[1] > 5:
        figures["top5_accuracy"] = top_k_accuracy(probabilities, labels, 5)
    return figures | {"mean_class_accuracy": mean_class_accuracy(probabilities, labels)}


def violence_metrics(
    scores: Array, positive: Array, names: tuple[str, str], threshold: float = 0.5
) -> dict[str, float]:
    """Returns the metrics of one class to detect among two.

    - `scores` (n,): probability of class 1.
    - `positive` (n,): truth of 0 and 1.
    - `names`: identifiers of classes 0 and 1.

    `accuracy`, `f1`, `recall_NAME0` and `recall_NAME1` hold at `threshold`. `auc` and `average_precision` cover all
    thresholds. Metrics that the truth leaves undefined are NaN.
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
    """Returns the 95 % interval of the share `correct / count` (Wilson 1927).

    Raises `ValueError` if `count` is below 1.
    """
    if count < 1:
        raise ValueError("no samples to score")
    interval = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float], groups: Sequence[str] | Array, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % percentile interval of `statistic(row numbers)`, with whole groups resampled.

    Clips of one recording are not independent, so resampling single clips would make the interval too narrow. Draws
    in which the statistic is not finite are dropped. The interval is NaN if no draw is left.

    - `groups` (n,): group of each row.
    - `draws`: number of bootstrap samples.

    Raises `ValueError` without rows.
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
        # A group's rows are a slice of `order`: concatenate the slices of the drawn groups.
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
        raise ValueError(f"{len(scores)} rows of scores, but {len(labels)} labels")
    if not np.isfinite(scores).all():
        raise ValueError("some scores are not finite")
    if classes is not None and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"labels range from {labels.min()} to {labels.max()}, but there are {classes} classes")
