"""The plan that divides the clips of an index: official lists, one group left out, folds, or a given split."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError
from ...shards.index.folds import usual_folds
from ...shards.index.label_table import read_text
from ...shards.index.table import Index, clean_key
from ...ssl.gather import rank
from .splits import Split, folds_of, given_split, groups_of, one_group_out


@dataclass(frozen=True)
class SplitPlan:
    """How to divide the clips. The first of `lists`, `leave_one_out` and `folds` that is set applies.

    Otherwise the column `split` of the index divides them. Validation clips have the value `val`.
    """

    folds: int | None = 0
    """Number of stratified folds. 0: use the column `split`. None: `default_plan` chooses."""
    leave_one_out: bool = False
    """One fold per value of the column `group`."""
    lists: tuple[str, ...] = ()
    """Official lists of files: train, test, train, test and so on. One pair per split."""
    group: str = "group"
    """Column whose clips stay in the same fold."""
    leaky: bool = False
    """Allow a group in several folds. This inflates scores."""
    train: str = "train"
    """Values of the column `split` for training. Several are joined by `+`."""
    test: str = "test"
    """Value of the column `split` for testing."""
    seed: int = 0
    """Seed of the folds."""

    @property
    def crossed(self) -> bool:
        """Whether every clip is tested by some split."""
        return bool(self.folds) or self.leave_one_out

    def describe(self, index: Index) -> str:
        """Returns a short description for a table note, for the clips of `index`."""
        if self.lists:
            return f"{len(self.lists) // 2} official splits"
        if self.leave_one_out:
            return f"leave one '{self.group}' out"
        if self.folds:
            if self.leaky:
                return f"{self.folds} folds, groups may be split"
            grouped = self.group in index.columns
            return f"{self.folds} folds " + (f"by '{self.group}'" if grouped else "of clips without a group")
        return f"trained on split '{self.train}', scored on '{self.test}'"


def default_plan(index: Index, label: str, plan: SplitPlan) -> tuple[SplitPlan, str]:
    """Returns `plan` with the number of folds filled in, and a line that explains the choice.

    - If the column `split` has the values that `plan` names, it is used. It is also used if `plan` names other values
      than the defaults.
    - Otherwise there are five folds, or three for more than 600 clips. Small data get fewer: at most as many as there
      are groups, and clips of the most frequent `label`.
    - Clips with the same value in the column `group` stay together. If the column is missing, or has a single value,
      each clip is its own group.

    The line is empty if `plan` already fixes the division.
    """
    if plan.folds is not None or plan.lists or plan.leave_one_out:
        return plan, ""
    named = SplitPlan()
    if (plan.train, plan.test) != (named.train, named.test):
        return replace(plan, folds=0), ""
    if "split" in index.columns:
        wanted = {plan.train, plan.test}
        if wanted <= set(index.column("split")):
            return replace(plan, folds=0), ""
        why = f"column 'split' has no value {' or '.join(sorted(wanted - set(index.column('split'))))}"
    else:
        why = "there is no column 'split'"
    groups = set(groups_of(index, plan.group) or ())
    units = len(groups) if len(groups) > 1 else len(index.samples)
    commonest = max(Counter(index.column(label)).values(), default=0)
    folds = max(min(usual_folds(len(index.samples)), units, commonest), 2)
    if len(groups) > 1:
        how = f"by '{plan.group}'"
    else:
        how = "by clip, because " + (f"all have the same '{plan.group}'" if groups else f"there is no '{plan.group}'")
    line = f"{why}: {folds} folds {how} (--folds N or data.folds=N changes this)"
    return replace(plan, folds=folds, leaky=plan.leaky or len(groups) == 1), line


def plan_splits(index: Index, label: str, plan: SplitPlan) -> list[Split]:
    """Returns the splits that `plan` describes. Every clip of `index` must have a `label`.

    Prints a warning on standard error if the column `split`, official lists or folds by another column divide a
    group. Prints a note if the clips have no column `group`, because each clip is then its own group.

    Raises `RequestError` if the plan does not fit the shards, and for a random split of clips that have groups.
    """
    plan, _ = default_plan(index, label, plan)
    if plan.lists:
        splits = _listed(index, plan.lists)
    elif plan.leave_one_out:
        splits = one_group_out(index, plan.group)
        alone = sum(not value.strip() for value in index.column(plan.group))
        if alone:
            say(
                f"note: {alone} clips without a value in column '{plan.group}' are groups of their own: each is "
                "tested by a separate model (data.where.COLUMN=VALUE selects clips)"
            )
    elif plan.folds:
        splits = _folds(index, label, plan)
    elif "split" in index.columns:
        splits = [given_split(index, plan.train, plan.test)]
    else:
        raise RequestError(
            f"'{index.folder}' has no column 'split': use folds, and name the column whose clips stay together"
        )
    if not (plan.crossed or plan.leaky):
        _warn_of_divided_groups(index, splits, plan.group)
    elif plan.crossed and not plan.leaky and plan.group != "group" and "group" in index.columns:
        _warn_of_divided_groups(index, splits, "group")
    return splits


def _folds(index: Index, label: str, plan: SplitPlan) -> list[Split]:
    if plan.leaky:
        return folds_of(_ungrouped(index), label, plan.folds or 0, "group", plan.seed)
    if plan.group and (plan.group in index.columns or plan.group != "group"):
        return folds_of(index, label, plan.folds or 0, plan.group, plan.seed)
    if "group" in index.columns:
        raise RequestError(
            "a random split would put clips of one group on both sides: keep 'group' as the group, or set leaky"
        )
    if rank() == 0:
        print(
            f"note: '{index.folder}' has no column 'group', so each clip is its own group: if several clips show "
            "the same recording or person, add that column to labels.csv and pack again",
            file=sys.stderr,
        )
    return folds_of(_ungrouped(index), label, plan.folds or 0, "group", plan.seed)


def _ungrouped(index: Index) -> Index:
    """Returns the index with each clip as its own group."""
    samples = [replace(sample, labels=sample.labels | {"group": sample.key}) for sample in index.samples]
    return replace(index, samples=tuple(samples))


def _listed(index: Index, lists: Sequence[str]) -> list[Split]:
    """Reads lists in the format of UCF101 and HMDB51: each line starts with a file path, and the rest is ignored."""
    if len(lists) % 2:
        raise RequestError(f"got {len(lists)} official lists: give pairs of a train list and a test list")
    numbers: dict[str, list[int]] = {}
    for number, sample in enumerate(index.samples):
        # Packing cuts a long file into numbered pieces.
        for name in {sample.key, re.sub(r"-\d+$", "", sample.key)}:
            numbers.setdefault(name, []).append(number)
    splits = []
    for train, test in zip(lists[::2], lists[1::2], strict=True):
        rows = [_read_list(Path(path), numbers) for path in (train, test)]
        both = np.intersect1d(rows[0], rows[1])
        if len(both):
            raise RequestError(f"clip '{index.samples[both[0]].key}' is in both '{train}' and '{test}'")
        splits.append(Split(Path(test).stem, rows[0], rows[0][:0], rows[1]))
    return splits


def _read_list(path: Path, numbers: dict[str, list[int]]) -> NDArray[np.int64]:
    """Returns the sample numbers of the clips in a list."""
    text = read_text(path, "list of clips")
    # Lists written on Windows have backslashes.
    lines = [line.split()[0].replace("\\", "/") for line in text.splitlines() if line.strip()]
    rows: set[int] = set()
    missing = 0
    for file in map(Path, lines):
        # If two folders have files of the same name, `pack` prefixes the folder name.
        names = (f"{clean_key(file.parent.name)}_{clean_key(file.stem)}", clean_key(file.stem))
        found = next((numbers[name] for name in names if name in numbers), None)
        missing += found is None
        rows.update(found or ())
    if not rows:
        raise RequestError(f"no clip of the list '{path}' is in the shards: give the lists of the packed data set")
    if missing:
        warn(f"{missing} of {len(lines)} clips of '{path.name}' are not in the shards")
    return np.array(sorted(rows), np.int64)


def _warn_of_divided_groups(index: Index, splits: Sequence[Split], group: str) -> None:
    groups = groups_of(index, group)
    if groups is None:
        return
    names = np.array(groups)
    for split in splits:
        both = sorted(set(names[split.train]) & set(names[split.test]))
        if both:
            warn(
                f"{len(both)} values of '{group}' have clips on both sides of split '{split.name}', such as "
                f"'{both[0]}'. Its scores may be too high"
            )


def warn(line: str) -> None:
    """Prints a warning on standard error. Only the first process prints."""
    say(f"warning: {line}")


def say(line: str) -> None:
    """Prints a line on standard error, unless it is empty. Only the first process prints."""
    if rank() == 0 and line:
        print(line, file=sys.stderr)
