"""Comparison of fine-tuning runs on the same test clips, with paired tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError
from ..metrics.auc_difference import auc_difference, auc_test
from ..metrics.chance import accuracy_figure, chance_warning, majority_share
from ..metrics.classification import bootstrap_interval, roc_auc
from ..metrics.significance import Difference, few_groups_note, holm, paired_bootstrap, paired_test, which_test
from ..records import Cell, Figure, Result, Table, new_result, scores_file
from ..robustness.robustness_comparison import area_figures, area_table, compare_areas, load_swept
from .scores import Scores, load_scores


@dataclass(frozen=True)
class Contender:
    """Stored test scores of one run."""

    name: str
    scores: Scores
    units: list[str]
    """Group of each clip. The bootstrap draws groups whole."""
    classes: list[str]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the most probable class of each clip is correct, (n,)."""
        return self.scores.probabilities.argmax(axis=1) == self.scores.labels

    @property
    def auc(self) -> float:
        """Returns the ROC AUC of class 1 of two, a mean over folds. With two classes, both have the same AUC."""
        chances, truth = self.scores.probabilities[:, 1], self.scores.labels == 1
        return float(self.scores.divided.mean(lambda rows: roc_auc(chances[rows], truth[rows])))


@dataclass(frozen=True)
class Duel:
    """Comparison of two runs. Differences are `second` minus `first`."""

    first: str
    second: str
    accuracy: Difference
    """Difference of the accuracies."""
    p: float
    """p value of the accuracies, from `paired_test`."""
    adjusted: float
    """The same p value, adjusted by Holm's method for all pairs compared."""
    auc: Difference | None
    """Difference of the AUCs with its p value, from `auc_difference`. None unless there are two classes."""
    auc_adjusted: float | None
    """The p value of the AUCs, adjusted by Holm's method for all pairs compared."""


def load_contenders(runs: Sequence[Path]) -> list[Contender]:
    """Loads the stored test scores of fine-tuning runs, with their clips in the same order.

    Raises `RequestError` for fewer than two runs, for a run without scores, and for runs with different test clips,
    labels or classes. Raises `DataError` for damaged scores.
    """
    if len(runs) < 2:
        raise RequestError("a comparison needs at least two runs")
    found = [_load(run) for run in runs]
    first = found[0]
    for other in found[1:]:
        if other.classes != first.classes:
            raise RequestError(
                f"'{first.name}' has the classes {', '.join(first.classes)}, but '{other.name}' has "
                f"{', '.join(other.classes)}: compare runs with the same classes"
            )
        differ = len(set(first.scores.keys) ^ set(other.scores.keys))
        if differ:
            raise RequestError(
                f"{differ} test clips are in only one of '{first.name}' and '{other.name}': compare runs with the"
                " same shards, split and folds"
            )
        if (first.scores.labels != other.scores.labels).any():
            raise RequestError(
                f"'{first.name}' and '{other.name}' have different labels: compare runs with equal labels"
            )
    names = [run.name for run in found]
    # Runs with the same folder name are named by their whole path.
    return [
        replace(run, name=str(path)) if names.count(run.name) > 1 else run
        for path, run in zip(runs, found, strict=True)
    ]


def duels(contenders: Sequence[Contender], draws: int = 2000) -> list[Duel]:
    """Compares every pair of runs. p values are adjusted for the number of pairs.

    - `draws`: number of bootstrap samples.
    """
    pairs = list(combinations(contenders, 2))
    values = [paired_test(first.right, second.right, first.units) for first, second in pairs]
    adjusted = holm(values).tolist()
    areas = [_auc(first, second, draws) for first, second in pairs]
    adjusted_areas = [None if area is None else p for area, p in zip(areas, _adjusted(areas), strict=True)]
    return [
        Duel(first.name, second.name, _accuracy(first, second, draws), p, of_all, area, of_areas)
        for (first, second), p, of_all, area, of_areas in zip(
            pairs, values, adjusted, areas, adjusted_areas, strict=True
        )
    ]


def compare(runs: Sequence[Path], command: str = "", draws: int = 2000) -> tuple[list[Duel], Result]:
    """Compares all pairs of `runs` and returns the comparisons with their record.

    The record has a table of the runs and a table of the pairs. If `modalgate robustness` was run for all of them, it
    also compares the areas under their robustness curves.

    - `command`: the command line to store in the record.
    - `draws`: number of bootstrap samples.

    Raises as `load_contenders` does.
    """
    contenders = load_contenders(runs)
    found = duels(contenders, draws)
    clips, units = len(contenders[0].units), len(set(contenders[0].units))
    alone: list[list[Cell]] = []
    chance, warnings = majority_share(contenders[0].scores.labels), []
    for run in contenders:
        right = run.right.astype(float)
        low, high = bootstrap_interval(lambda rows, right=right: float(right[rows].mean()), run.units)
        auc = run.auc if len(run.classes) == 2 else None
        alone.append([run.name, float(right.mean()), low, high, chance, auc, None if auc is None else 0.5])
        figure = accuracy_figure(f"{run.name}: accuracy", float(right.mean()), low, high, chance, clips)
        warnings += chance_warning([figure], "do not rely on its differences; train it longer (train.steps)")
    groups, folds = contenders[0].units, contenders[0].scores.divided
    few, mean = few_groups_note(groups), f" AUC: mean over {len(folds.sizes)} folds." * (len(folds.sizes) > 1)
    note = f"{clips} test clips in {units} groups. 95 % intervals by bootstrap over groups.{few}"
    pairs = [f"{duel.second} - {duel.first}" for duel in found]
    accuracies: list[list[Cell]] = [
        [pair, duel.accuracy.value, duel.accuracy.low, duel.accuracy.high, duel.p, duel.adjusted]
        for pair, duel in zip(pairs, found, strict=True)
    ]
    areas: list[list[Cell]] = [
        [pair, duel.auc.value, duel.auc.low, duel.auc.high, duel.auc.p, duel.auc_adjusted]
        for pair, duel in zip(pairs, found, strict=True)
        if duel.auc is not None
    ]
    tested, tested_areas = (
        f"{note} Paired. p: {test}. Holm: p adjusted for the number of pairs."
        for test in (which_test(groups), auc_test(groups))
    )
    tables = [
        Table("Runs", ["run", "accuracy", "low", "high", "chance", "AUC", "chance of AUC"], alone, note + mean),
        Table("Accuracy, second less first", ["pair", "gain", "low", "high", "p", "Holm"], accuracies, tested),
    ]
    if areas:
        tables.append(
            Table("AUC, second less first", ["pair", "gain", "low", "high", "p", "Holm"], areas, tested_areas + mean)
        )
    swept = load_swept([run.name for run in contenders], runs)
    figures: list[Figure] = []
    if swept:
        tables.append(area_table(compare_areas(swept, draws)))
        figures += area_figures(swept)
    return found, new_result("comparison", "Comparison of runs", command, tables, figures, warnings)


def _load(run: Path) -> Contender:
    scores, units, classes = load_scores(scores_file(run))
    if scores.labels.ndim == 2:
        raise RequestError(f"'{run}' has several classes per clip: compare runs with one class per clip")
    # A clip may be tested by several official splits.
    order = np.lexsort((scores.folds or scores.keys, scores.keys))
    ordered = Scores(
        scores.probabilities[order],
        scores.weights[order],
        scores.labels[order],
        [scores.keys[i] for i in order],
        [scores.folds[i] for i in order] if scores.folds else [],
    )
    return Contender(run.name, ordered, [units[i] for i in order], classes)


def _accuracy(first: Contender, second: Contender, draws: int) -> Difference:
    gain = second.right.astype(float) - first.right.astype(float)
    return paired_bootstrap(lambda rows, seed: float(gain[rows].mean()), first.units, draws=draws)


def _auc(first: Contender, second: Contender, draws: int) -> Difference | None:
    if len(first.classes) != 2:
        return None
    mine, theirs = (one.scores.probabilities[None, :, 1:] for one in (first, second))
    return auc_difference(
        mine,
        theirs,
        first.scores.labels,
        lambda scores, labels: roc_auc(scores[:, 0], labels == 1),
        first.units,
        (first.scores.divided, second.scores.divided),
        draws,
    )


def _adjusted(areas: Sequence[Difference | None]) -> list[float]:
    return holm([float("nan") if area is None else area.p for area in areas]).tolist()
