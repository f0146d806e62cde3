"""How the clips of an index are divided for an evaluation: the four protocols behind one door."""

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
from ...shards.index.table import Index, clean_key
from ...ssl.gather import rank
from .splits import Split, folds_of, given_split, groups_of, one_group_out


@dataclass(frozen=True)
class SplitPlan:
    """What a person asks for; the first of these that is given counts.

    `lists`: official lists of files, train and test by turns, one pair per split; `leave_one_out`: a fold per value
    of the column `group`; `folds`: stratified folds that keep a group together, or do not where `leaky`; with 0 the
    column `split` with its values `train` (several joined by `+`), `test`, and `val` for validation. Where `folds` is
    none, `default_plan` chooses.
    """

    folds: int | None = 0
    leave_one_out: bool = False
    lists: tuple[str, ...] = ()
    group: str = "group"
    leaky: bool = False
    train: str = "train"
    test: str = "test"
    seed: int = 0

    @property
    def crossed(self) -> bool:
        """Whether every clip is tested by some split, rather than those of a given one."""
        return bool(self.folds) or self.leave_one_out

    def describe(self, index: Index) -> str:
        """In a table's note, of the clips of `index`."""
        if self.lists:
            return f"{len(self.lists) // 2} official splits"
        if self.leave_one_out:
            return f"each '{self.group}' left out in turn"
        if self.folds:
            if self.leaky:
                return f"{self.folds} folds that may split a group"
            grouped = self.group in index.columns
            return f"{self.folds} folds " + (f"by '{self.group}'" if grouped else "of clips without a group")
        return f"trained on split '{self.train}', scored on '{self.test}'"


def default_plan(index: Index, label: str, plan: SplitPlan) -> tuple[SplitPlan, str]:
    """`plan` with a number of folds where it leaves that open, and a line that says how it was chosen.

    The column `split` is used where it has the values that `plan` names, and in any case where a person named others
    than the usual ones. Otherwise there are five folds (three of more than 600 clips), or as many as groups and clips
    of the commonest `label` allow; clips with one value of the column `group` stay together. Without such a column,
    or with a single value in it, clips are divided one by one. The line is empty where nothing was left open.
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
        why = f"the column 'split' has no clips of {' or '.join(sorted(wanted - set(index.column('split'))))}"
    else:
        why = "there is no column 'split'"
    groups = set(groups_of(index, plan.group) or ())
    units = len(groups) if len(groups) > 1 else len(index.samples)
    commonest = max(Counter(index.column(label)).values(), default=0)
    folds = max(min(usual_folds(len(index.samples)), units, commonest), 2)
    if len(groups) > 1:
        how = f"that keep each '{plan.group}' together"
    else:
        how = "by clip, for " + (f"all have the same '{plan.group}'" if groups else f"there is no '{plan.group}'")
    line = f"{why}: {folds} folds {how} (--folds N or data.folds=N for others)"
    return replace(plan, folds=folds, leaky=plan.leaky or len(groups) == 1), line


def plan_splits(index: Index, label: str, plan: SplitPlan) -> list[Split]:
    """The splits that `plan` asks for, of an index whose clips all have a `label`.

    Where a given split, or folds by another column, divide a group nobody is stopped, but told on standard error; so
    are folds of clips that have no column 'group', where every clip is a group of its own.
    Raises `RequestError` where the plan does not suit the shards, and for a random split of clips that have groups.
    """
    plan, _ = default_plan(index, label, plan)
    if plan.lists:
        splits = _listed(index, plan.lists)
    elif plan.leave_one_out:
        splits = one_group_out(index, plan.group)
    elif plan.folds:
        splits = _folds(index, label, plan)
    elif "split" in index.columns:
        splits = [given_split(index, plan.train, plan.test)]
    else:
        raise RequestError(
            f"'{index.folder}' has no column 'split': ask for folds, and name the column whose clips stay together"
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
            "a random split would put clips of one group on both sides: keep 'group' as the group, or say leaky"
        )
    if rank() == 0:
        print(
            f"note: '{index.folder}' has no column 'group', so every clip is a group of its own: if clips of one "
            "recording or person belong together, give labels.csv that column and pack again",
            file=sys.stderr,
        )
    return folds_of(_ungrouped(index), label, plan.folds or 0, "group", plan.seed)


def _ungrouped(index: Index) -> Index:
    """Every clip a group of its own."""
    samples = [replace(sample, labels=sample.labels | {"group": sample.key}) for sample in index.samples]
    return replace(index, samples=tuple(samples))


def _listed(index: Index, lists: Sequence[str]) -> list[Split]:
    """Lists as UCF101 and HMDB51 publish them: a file's path begins each line, what follows it is not read."""
    if len(lists) % 2:
        raise RequestError(f"official lists come in pairs of train and test, not {len(lists)}")
    numbers: dict[str, list[int]] = {}
    for number, sample in enumerate(index.samples):
        # A long file was cut into numbered pieces.
        for name in {sample.key, re.sub(r"-\d+$", "", sample.key)}:
            numbers.setdefault(name, []).append(number)
    splits = []
    for train, test in zip(lists[::2], lists[1::2], strict=True):
        rows = [_read_list(Path(path), numbers) for path in (train, test)]
        both = np.intersect1d(rows[0], rows[1])
        if len(both):
            raise RequestError(f"clip '{index.samples[both[0]].key}' stands in both '{train}' and '{test}'")
        splits.append(Split(Path(test).stem, rows[0], rows[0][:0], rows[1]))
    return splits


def _read_list(path: Path, numbers: dict[str, list[int]]) -> NDArray[np.int64]:
    """Sample numbers of the clips that a list names."""
    try:
        lines = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the list '{path}' ({error}): give a text file, one clip a line") from error
    rows: set[int] = set()
    missing = 0
    for file in map(Path, lines):
        # Where two folders hold files of one name, `pack` put the folder's before it.
        names = (f"{clean_key(file.parent.name)}_{clean_key(file.stem)}", clean_key(file.stem))
        found = next((numbers[name] for name in names if name in numbers), None)
        missing += found is None
        rows.update(found or ())
    if not rows:
        raise RequestError(f"no clip of the list '{path}' is in the shards: give the lists of the packed set")
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
                f"'{both[0]}': its scores may be too good"
            )


def warn(line: str) -> None:
    """Tells a person on standard error; of several processes one speaks for all."""
    say(f"warning: {line}")


def say(line: str) -> None:
    """The same of what is no fault."""
    if rank() == 0 and line:
        print(line, file=sys.stderr)
