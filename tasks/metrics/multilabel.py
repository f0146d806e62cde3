"""Clips that belong to several classes at once: their truth, its figures of merit, and a threshold per class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError, choice_error
from ...shards.index.labels import join_columns, label_values
from ...shards.index.table import Index
from ..splits.splits import labelled
from .classification import average_precisions
from .thresholds import best_f1_threshold

Array = NDArray[Any]
STRATUM = "rarest class"


@dataclass(frozen=True)
class Labelled:
    """Clips and what they are told to be: `labels` are class numbers (n,), or of several classes 0 and 1 (n, C).

    `column` of the index holds them; folds spread the values of the column `strata`.
    """

    index: Index
    column: str
    strata: str
    classes: list[str]
    labels: NDArray[np.int64]


def labelled_clips(
    index: Index, label: str, columns: Sequence[str] = (), multilabel: bool = False, classes: Sequence[str] = ()
) -> Labelled:
    """The clips of `index` that have a label in the column `label`, one class each.

    With `multilabel` its values name several classes (`fight|shouting`), or the `columns` hold 0 and 1; with
    `classes` only those count. Raises `RequestError` for columns without `multilabel`, and what they cannot say.
    """
    if multilabel:
        index, column = join_columns(index, columns) if columns else (index, label)
        index, names, truth = multi_labelled(index, column, classes)
        return Labelled(index, column, STRATUM, names, truth)
    if columns:
        raise RequestError(f"columns {', '.join(columns)} are several classes of a clip: ask for multilabel too")
    index, names, numbers = labelled(index, label)
    return Labelled(index, label, label, names, numbers)


def multi_labelled(
    index: Index, label: str, classes: Sequence[str] = ()
) -> tuple[Index, list[str], NDArray[np.int64]]:
    """The samples that have a `label`, its classes in sorted order, and the truth (n, C) of 0 and 1.

    With `classes` only those count. The samples gain the column `STRATUM`, the rarest of a clip's classes: folds that
    spread it evenly give every fold its share of the rare ones. Raises `RequestError` for fewer than two classes, and
    for one that never occurs.
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
    samples = [
        replace(sample, labels=sample.labels | {STRATUM: stratum or "none"})
        for sample, stratum in zip(index.samples, strata, strict=True)
    ]
    return replace(index, samples=tuple(samples)), names, truth


def rarest(truth: Array) -> list[int | None]:
    """For each row of `truth` (n, C) the class of its own that the fewest rows have; none for a row without one."""
    counts = truth.sum(axis=0)
    order = np.argsort(counts, kind="stable")
    return [next((int(number) for number in order if row[number]), None) for row in truth]


def mean_average_precision(probabilities: Array, truth: Array) -> float:
    """Mean average precision over the classes that occur; NaN where none does."""
    found = average_precisions(probabilities, truth)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def multilabel_metrics(probabilities: Array, truth: Array, thresholds: Array | float = 0.5) -> dict[str, float]:
    """`mean_average_precision`; `micro_f1` over all decisions and `macro_f1`, the mean over classes, at `thresholds`,
    one or (C,). A class that neither occurs nor is guessed has an F1 of zero, as in scikit-learn."""
    guessed, truth = probabilities >= np.asarray(thresholds), np.asarray(truth) == 1
    hits, marked = (guessed & truth).sum(axis=0), guessed.sum(axis=0) + truth.sum(axis=0)
    return {
        "mean_average_precision": mean_average_precision(probabilities, truth),
        "micro_f1": float(2 * hits.sum() / max(marked.sum(), 1)),
        "macro_f1": float((2 * hits / np.maximum(marked, 1)).mean()),
    }


def class_thresholds(probabilities: Array, truth: Array) -> NDArray[np.float64]:
    """The threshold of best F1 of each class (C,), .5 where it does not occur; choose them on validation clips."""
    return np.array(
        [
            best_f1_threshold(scores, labels) if labels.any() else 0.5
            for scores, labels in zip(probabilities.T, truth.T, strict=True)
        ]
    )
