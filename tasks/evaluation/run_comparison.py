"""Whether one run's classifier beats another's on the same test clips."""

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
    """A run's scores of its test clips, with the `units` that are drawn whole by the bootstrap."""

    name: str
    scores: Scores
    units: list[str]
    classes: list[str]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each clip's likeliest class is its own, (n,)."""
        return self.scores.probabilities.argmax(axis=1) == self.scores.labels

    def auc(self, rows: NDArray[np.int64]) -> float:
        """Of the second of two classes, which is that of the first as well."""
        return roc_auc(self.scores.probabilities[rows, 1], self.scores.labels[rows] == 1)


@dataclass(frozen=True)
class Duel:
    """`second` less `first`: accuracy, and AUC where there are two classes; McNemar's exact p and Holm's of all."""

    first: str
    second: str
    accuracy: Difference
    auc: Difference | None
    mcnemar: float
    adjusted: float


def load_contenders(runs: Sequence[Path]) -> list[Contender]:
    """The stored scores of fine-tuning runs, their clips in one order.

    Raises `RequestError` for fewer than two runs, one without scores, and runs of which the test clips, labels or
    classes differ; `DataError` for damaged scores.
    """
    if len(runs) < 2:
        raise RequestError("a comparison needs two runs or more")
    found = [_load(run) for run in runs]
    first = found[0]
    for other in found[1:]:
        if other.classes != first.classes:
            raise RequestError(
                f"'{first.name}' tells {', '.join(first.classes)} apart, '{other.name}' {', '.join(other.classes)}:"
                " compare runs of the same classes"
            )
        differ = len(set(first.scores.keys) ^ set(other.scores.keys))
        if differ:
            raise RequestError(
                f"{differ} test clips are in only one of '{first.name}' and '{other.name}': compare runs whose"
                " shards, split and folds are the same"
            )
        if (first.scores.labels != other.scores.labels).any():
            raise RequestError(f"'{first.name}' and '{other.name}' were scored against different labels")
    names = [run.name for run in found]
    # Runs of the same name lie in different folders, which then tell them apart.
    return [
        replace(run, name=str(path)) if names.count(run.name) > 1 else run
        for path, run in zip(runs, found, strict=True)
    ]


def duels(contenders: Sequence[Contender], draws: int = 2000) -> list[Duel]:
    """Every pair, in the order given; p values of McNemar's test are adjusted for the number of pairs."""
    pairs = list(combinations(contenders, 2))
    values = [mcnemar(first.right, second.right) for first, second in pairs]
    return [
        Duel(first.name, second.name, *_differences(first, second, draws), value, float(adjusted))
        for (first, second), value, adjusted in zip(pairs, values, holm(values), strict=True)
    ]


def compare(runs: Sequence[Path], command: str = "", draws: int = 2000) -> tuple[list[Duel], Result]:
    """All pairs of `runs`, and the record of it: a table of the runs and one of the pairs; where all runs were swept
    by `modalgate robustness`, also one of the areas under their curves."""
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
        warnings += chance_warning([figure], "its differences from others say little; train it longer (train.steps)")
    note = f"{clips} test clips in {units} groups; intervals by bootstrap over groups"
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
    exact = f"{note}, paired; McNemar's p is exact, of single clips, and adjusted for the number of pairs (Holm)"
    tables = [
        Table("Runs", ["run", "accuracy", "low", "high", "chance", "AUC"], alone, note),
        Table("Accuracy, second less first", ["pair", "gain", "low", "high", "McNemar", "Holm"], accuracies, exact),
    ]
    if areas:
        tables.append(Table("AUC, second less first", ["pair", "gain", "low", "high", "p"], areas, f"{note}, paired"))
    swept = load_swept([run.name for run in contenders], runs)
    figures: list[Figure] = []
    if swept:
        tables.append(area_table(compare_areas(swept, draws)))
        figures += area_figures(swept)
    return found, new_result("comparison", "Comparison of runs", command, tables, figures, warnings)


def _load(run: Path) -> Contender:
    scores, units, classes = load_scores(scores_file(run))
    if scores.labels.ndim == 2:
        raise RequestError(f"'{run}' scores several classes of a clip: compare runs of clips of one class each")
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
