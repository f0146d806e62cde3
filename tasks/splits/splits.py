"""Which clips a model is fitted on and which it is scored on."""

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
    """Sample numbers of an index: `train`, `test`, and `validation`, which is empty where folds leave none."""

    name: str
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def labelled(index: Index, label: str) -> tuple[Index, list[str], NDArray[np.int64]]:
    """The samples that have a `label`, its values in sorted order, and each sample's class number."""
    values = index.column(label)
    index = index.keep(sample.key for sample, value in zip(index.samples, values, strict=True) if value.strip())
    classes = sorted(set(index.column(label)))
    if len(classes) < 2:
        raise RequestError(f"label column '{label}' of '{index.folder}' has fewer than two values")
    numbers = {name: number for number, name in enumerate(classes)}
    return index, classes, np.array([numbers[value] for value in index.column(label)])


def groups_of(index: Index, group: str) -> list[str] | None:
    """The column `group` by sample, or none where the index has no such column.

    A sample whose column is empty is a group of its own, by its key.
    """
    if group not in index.columns:
        return None
    return [value or sample.key for value, sample in zip(index.column(group), index.samples, strict=True)]


def folds_of(index: Index, label: str, folds: int, group: str, seed: int = 0) -> list[Split]:
    """Cross-validation folds that keep a `group` together; `RequestError` where there is no such column."""
    groups = groups_of(index, group) or index.column(group)
    numbers = grouped_folds(index.column(label), groups, folds, seed)
    everything = np.arange(len(numbers))
    return [
        Split(f"fold-{fold}", everything[numbers != fold], everything[:0], everything[numbers == fold])
        for fold in range(folds)
    ]


def one_group_out(index: Index, group: str) -> list[Split]:
    """A split for every value of the column `group`, which is tested by a model fitted on all others.

    Samples whose column is empty are in no split: nobody knows whose they are. Raises `RequestError` where there is
    no such column, or one value only.
    """
    column = np.array(index.column(group))
    names = np.unique(column[column != ""])
    if len(names) < 2:
        raise RequestError(f"column '{group}' has one value only: nothing can be left out")
    known = np.flatnonzero(column != "")
    column = column[known]
    return [Split(f"{group}-{name}", known[column != name], known[:0], known[column == name]) for name in names]


def given_split(index: Index, train: str, test: str | None = None) -> Split:
    """The split that column `split` gives: values `train` (several joined by `+`) and `test`; validation clips are
    those of `val`, unless they train. Raises `RequestError` where there is no such column or value."""
    if "split" not in index.columns:
        raise RequestError(
            "these clips have no column 'split' that says which of them train and which are scored: "
            "ask for folds instead (--folds 5, or data.folds=5), or give labels.csv the column and pack again"
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
    """The samples with these numbers."""
    return index.keep(index.samples[int(number)].key for number in numbers)


def keep_used(index: Index, splits: Sequence[Split]) -> tuple[Index, list[Split]]:
    """Only the samples that some split uses, and the splits over their new numbers."""
    used = np.unique(np.concatenate([part for s in splits for part in (s.train, s.validation, s.test)]))
    renumbered = [
        Split(s.name, *(np.searchsorted(used, part) for part in (s.train, s.validation, s.test))) for s in splits
    ]
    return take(index, used), renumbered


def hold_out(split: Split, index: Index, label: str, group: str, seed: int = 0) -> Split:
    """The split with validation clips: its own, or else a fifth of its training groups, chosen with `seed`.

    One group where there are fewer than five. Without a column `group` every clip is a group of its own.
    """
    if len(split.validation):
        return split
    groups = groups_of(index, group) or [sample.key for sample in index.samples]
    labels, units = index.column(label), [groups[i] for i in split.train]
    # One group cannot be divided: asking for two folds says so.
    folds = min(5, max(2, len(set(units))))
    numbers = grouped_folds([labels[i] for i in split.train], units, folds, seed)
    return Split(split.name, split.train[numbers != 0], split.train[numbers == 0], split.test)
