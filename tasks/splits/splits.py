"""Splits of clips into training, validation and test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError
from ...shards.index.folds import grouped_folds
from ...shards.index.table import Index

VALIDATION = "val"


@dataclass(frozen=True)
class Split:
    """Sample numbers of an index."""

    name: str
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    """Validation samples. Empty for folds until `hold_out` chooses some."""
    test: NDArray[np.int64]


def labelled(index: Index, label: str) -> tuple[Index, list[str], NDArray[np.int64]]:
    """Returns the labelled samples, the sorted values of `label`, and the class number of each sample (n,).

    Raises `RequestError` for fewer than two values.
    """
    values = index.column(label)
    index = index.keep(sample.key for sample, value in zip(index.samples, values, strict=True) if value.strip())
    classes = sorted(set(index.column(label)))
    if len(classes) < 2:
        raise RequestError(
            f"label column '{label}' of '{index.folder}' has fewer than two values: choose another column"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return index, classes, np.array([numbers[value] for value in index.column(label)])


def groups_of(index: Index, group: str) -> list[str] | None:
    """Returns the column `group` by sample, or None if the index has no such column.

    A sample with an empty or blank value is its own group, named by its key.
    """
    if group not in index.columns:
        return None
    return [value.strip() or sample.key for value, sample in zip(index.column(group), index.samples, strict=True)]


def folds_of(index: Index, label: str, folds: int, group: str, seed: int = 0) -> list[Split]:
    """Returns cross-validation folds that keep each `group` together.

    Raises `RequestError` if there is no such column.
    """
    groups = groups_of(index, group) or index.column(group)
    numbers = grouped_folds(index.column(label), groups, folds, seed)
    everything = np.arange(len(numbers))
    return [
        Split(f"fold-{fold}", everything[numbers != fold], everything[:0], everything[numbers == fold])
        for fold in range(folds)
    ]


def one_group_out(index: Index, group: str) -> list[Split]:
    """Returns one split per value of the column `group`: it is tested by a model trained on all other values.

    A sample with an empty value is its own group, as everywhere, and has its own split. Raises `RequestError` if the
    column is missing, or if there is a single group.
    """
    column = np.array(groups_of(index, group) or index.column(group))
    names = np.unique(column)
    if len(names) < 2:
        raise RequestError(f"column '{group}' has only one value: leaving one out needs at least two")
    return [
        Split(f"{group}-{name}", np.flatnonzero(column != name), np.arange(0), np.flatnonzero(column == name))
        for name in names
    ]


def given_split(index: Index, train: str, test: str | None = None) -> Split:
    """Returns the split of the column `split`.

    - `train`: value for training. Several are joined by `+`.
    - `test`: value for testing. None: no test clips.

    Validation clips have the value `val`, unless `train` names it. Raises `RequestError` if the column or a value is
    missing.
    """
    if "split" not in index.columns:
        raise RequestError(
            "these clips have no column 'split' for training and test: "
            "use folds (--folds 5, or data.folds=5), or add the column to labels.csv and pack again"
        )
    column = np.array(index.column("split"))
    for name in (*train.split("+"), *([test] if test else [])):
        index.where(split=name)
    return Split(
        test or "",
        np.flatnonzero(np.isin(column, train.split("+"))),
        np.flatnonzero((column == VALIDATION) & ~np.isin(column, train.split("+"))),
        np.flatnonzero(column == test),
    )


def take(index: Index, numbers: Sequence[int] | NDArray[np.int64]) -> Index:
    """Returns the samples with these numbers."""
    return index.keep(index.samples[int(number)].key for number in numbers)


def keep_used(index: Index, splits: Sequence[Split]) -> tuple[Index, list[Split]]:
    """Returns the samples that some split uses, and the splits with their new numbers."""
    used = np.unique(np.concatenate([part for s in splits for part in (s.train, s.validation, s.test)]))
    renumbered = [
        Split(s.name, *(np.searchsorted(used, part) for part in (s.train, s.validation, s.test))) for s in splits
    ]
    return take(index, used), renumbered


def hold_out(split: Split, index: Index, label: str, group: str, seed: int = 0) -> Split:
    """Returns the split with validation clips.

    If it has none, a fifth of the training groups is held out, chosen with `seed`. Fewer than five groups give one of
    them. Without a column `group`, each clip is its own group.

    Raises `RequestError` if the training clips form a single group.
    """
    if len(split.validation):
        return split
    groups = groups_of(index, group) or [sample.key for sample in index.samples]
    labels, units = index.column(label), [groups[i] for i in split.train]
    # With a single group, two folds raise the right error.
    folds = min(5, max(2, len(set(units))))
    numbers = grouped_folds([labels[i] for i in split.train], units, folds, seed)
    return Split(split.name, split.train[numbers != 0], split.train[numbers == 0], split.test)
