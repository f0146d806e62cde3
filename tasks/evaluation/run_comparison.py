"""Comparison of fine-tuning runs on the same test clips, with paired tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError
from ..metrics.chance import accuracy_figure, chance_warning, majority_share
from ..metrics.classification import bootstrap_interval, roc_auc
from ..metrics.significance import Difference, holm, mcnemar, paired_difference
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

    def auc(self, rows: NDArray[np.int64]) -> float:
        """Returns the ROC AUC of class 1 of two on `rows`. With two classes, both have the same AUC."""
        return roc_auc(self.scores.probabilities[rows, 1], self.scores.labels[rows] == 1)


@dataclass(frozen=True)
class Duel:
    """Comparison of two runs. Differences are `second` minus `first`."""

    first: str
    second: str
    accuracy: Difference
    """Difference of the accuracies."""
    auc: Difference | None
    """Difference of the AUCs, or None unless there are two classes."""
    mcnemar: float
    """Exact p value of McNemar's test."""
    adjusted: float
    """The same p value, adjusted by Holm's method for all pairs compared."""


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
    """Compares every pair of runs. The p values of McNemar's test are adjusted for the number of pairs.

    - `draws`: number of bootstrap samples.
    """
    pairs = list(combinations(contenders, 2))
    values = [mcnemar(first.right, second.right) for first, second in pairs]
    return [
        Duel(first.name, second.name, *_differences(first, second, draws), value, float(adjusted))
        for (first, second), value, adjusted in zip(pairs, values, holm(values), strict=True)
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
        right, everywhere = run.right.astype(float), np.arange(clips)
        low, high = bootstrap_interval(lambda rows, right=right: float(right[rows].mean()), run.units)
        auc = run.auc(everywhere) if len(run.classes) == 2 else None
        alone.append([run.name, float(right.mean()), low, high, chance, auc])
        figure = accuracy_figure(f"{run.name}: accuracy", float(right.mean()), low, high, chance, clips)
        warnings += chance_warning([figure], "do not rely on its differences; train it longer (train.steps)")
    note = f"{clips} test clips in {units} groups. 95 % intervals by bootstrap over groups."
    pairs = [f"{duel.second} - {duel.first}" for duel in found]
    accuracies: list[list[Cell]] = [
        [pair, duel.accuracy.value, duel.accuracy.low, duel.accuracy.high, duel.mcnemar, duel.adjusted]
        for pair, duel in zip(pairs, found, strict=True)
    ]
    areas: list[list[Cell]] = [
        [pair, duel.auc.value, duel.auc.low, duel.auc.high, duel.auc.p]
        for pair, duel in zip(pairs, found, strict=True)
        if duel.auc is not None
    ]
    exact = f"{note} Paired. McNemar: exact p value over clips. Holm: p value adjusted for the number of pairs."
    tables = [
        Table("Runs", ["run", "accuracy", "low", "high", "chance", "AUC"], alone, note),
        Table("Accuracy, second less first", ["pair", "gain", "low", "high", "McNemar", "Holm"], accuracies, exact),
    ]
    if areas:
        tables.append(Table("AUC, second less first", ["pair", "gain", "low", "high", "p"], areas, f"{note} Paired."))
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
    order = np.argsort(scores.keys, kind="stable")
    ordered = Scores(
        scores.probabilities[order], scores.weights[order], scores.labels[order], [scores.keys[i] for i in order]
    )
    return Contender(run.name, ordered, [units[i] for i in order], classes)


def _differences(first: Contender, second: Contender, draws: int) -> tuple[Difference, Difference | None]:
    gain = second.right.astype(float) - first.right.astype(float)
    accuracy = paired_difference(lambda rows, seed: float(gain[rows].mean()), first.units, draws=draws)
    if len(first.classes) != 2:
        return accuracy, None
    return accuracy, paired_difference(
        lambda rows, seed: second.auc(rows) - first.auc(rows), first.units, draws=draws
    )
