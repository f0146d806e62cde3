"""Clips with several classes each: truth, metrics and thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError, choice_error
from ...shards.index.labels import SEPARATOR, join_columns, label_values
from ...shards.index.table import Index
from ..splits.splits import labelled
from .classification import average_precisions
from .thresholds import best_f1_threshold

Array = NDArray[Any]
STRATUM = "rarest class"


@dataclass(frozen=True)
class Labelled:
    """Labelled clips with the truth as numbers."""

    index: Index
    column: str
    """Index column that holds the labels."""
    strata: str
    """Index column whose values the folds balance."""
    classes: list[str]
    labels: NDArray[np.int64]
    """Class numbers (n,). With several classes per clip: 0 and 1 (n, C)."""


def labelled_clips(
    index: Index, label: str, columns: Sequence[str] = (), multilabel: bool = False, classes: Sequence[str] = ()
) -> Labelled:
    """Returns the clips that have a value in the column `label`, with one class each.

    - `columns`: columns of 0 and 1, one per class, instead of `label`. Only with `multilabel`.
    - `multilabel`: the value of `label` names several classes, as in `fight|shouting`.
    - `classes`: with `multilabel`, use these classes only.

    Raises `RequestError` for `columns` without `multilabel`, and for columns that do not hold usable labels.
    """
    if multilabel:
        index, column = join_columns(index, columns) if columns else (index, label)
        index, names, truth = multi_labelled(index, column, classes)
        return Labelled(index, column, STRATUM, names, truth)
    if columns:
        raise RequestError(f"columns {', '.join(columns)} give each clip several classes: set multilabel too")
    index, names, numbers = labelled(index, label)
    return Labelled(index, label, label, names, numbers)


def multi_labelled(
    index: Index, label: str, classes: Sequence[str] = ()
) -> tuple[Index, list[str], NDArray[np.int64]]:
    """Returns the labelled samples, the sorted class names and the truth (n, C) of 0 and 1.

    The samples gain the column `STRATUM` with the rarest class of each clip. Folds that balance this column give each
    fold its share of the rare classes. The column `label` of the samples keeps only the returned classes.

    - `classes`: use these classes only, in this order.

    Raises `RequestError` for fewer than two classes, and for a class that does not occur.
    """
    texts = index.column(label)
    index = index.keep(sample.key for sample, text in zip(index.samples, texts, strict=True) if text.strip())
    held = [label_values(text) for text in index.column(label)]
    known = sorted({value for values in held for value in values})
    for name in classes:
        if name not in known:
            raise choice_error(f"class of column '{label}'", name, known)
    names = list(classes) or known
    if len(names) < 2:
        raise RequestError(f"label column '{label}' of '{index.folder}' has fewer than two classes")
    truth = np.array([[name in values for name in names] for values in held], np.int64)
    strata = ["" if row is None else names[row] for row in rarest(truth)]
    # Only the classes in use: a stream takes any other value for a mistake.
    texts = [SEPARATOR.join(value for value in values if value in names) or SEPARATOR for values in held]
    samples = [
        replace(sample, labels=sample.labels | {label: text, STRATUM: stratum or "none"})
        for sample, text, stratum in zip(index.samples, texts, strata, strict=True)
    ]
    return replace(index, samples=tuple(samples)), names, truth


def rarest(truth: Array) -> list[int | None]:
    """Returns the rarest class of each row of `truth` (n, C), or None for a row without a class.

    >>> rarest(np.array([[1, 1], [1, 0], [0, 0]]))
    [1, 0, None]
    """
    counts = truth.sum(axis=0)
    order = np.argsort(counts, kind="stable")
    return [next((int(number) for number in order if row[number]), None) for row in truth]


def mean_average_precision(probabilities: Array, truth: Array) -> float:
    """Returns the mean average precision over the classes that occur. NaN if none occurs."""
    found = average_precisions(probabilities, truth)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def multilabel_metrics(probabilities: Array, truth: Array, thresholds: Array | float = 0.5) -> dict[str, float]:
    """Returns `mean_average_precision`, `micro_f1` (over all decisions) and `macro_f1` (mean over classes).

    - `probabilities` (n, C)
    - `truth` (n, C): 0 and 1.
    - `thresholds`: one number, or one per class (C,).

    The F1 of a class that neither occurs nor is predicted is zero, as in scikit-learn.
    """
    guessed, truth = probabilities >= np.asarray(thresholds), np.asarray(truth) == 1
    hits, marked = (guessed & truth).sum(axis=0), guessed.sum(axis=0) + truth.sum(axis=0)
    return {
        "mean_average_precision": mean_average_precision(probabilities, truth),
        "micro_f1": float(2 * hits.sum() / max(marked.sum(), 1)),
        "macro_f1": float((2 * hits / np.maximum(marked, 1)).mean()),
    }


def class_thresholds(probabilities: Array, truth: Array) -> NDArray[np.float64]:
    """Returns the threshold with the best F1 for each class (C,), 0.5 for a class that does not occur.

    Choose thresholds on validation clips, not on test clips.
    """
    return np.array(
        [
            best_f1_threshold(scores, labels) if labels.any() else 0.5
            for scores, labels in zip(probabilities.T, truth.T, strict=True)
        ]
    )
