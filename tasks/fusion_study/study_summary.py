"""Rows and tables of a fusion study: intervals over seeds and groups, and tests against two single modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.auc_difference import auc_difference, auc_test
from ..metrics.classification import top_k_accuracy
from ..metrics.fold_means import Folds
from ..metrics.significance import Difference, few_groups_note, holm, paired_bootstrap, paired_test, which_test
from ..robustness.curves import area_under
from .study_cell import Cell, Metric

# Enough draws for the third digit of an interval.
DRAWS = 2000


@dataclass(frozen=True)
class RowCost:
    """Cost of one segment, encoders included."""

    parameters: int
    """Number of trained parameters."""
    multiply_adds: int
    """Multiply-adds."""
    milliseconds: float
    """Measured time."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of a row with a reference."""

    difference: Difference
    """Row minus reference."""
    p: float
    """p value of the study's metric.

    For the accuracy that of `paired_test` on scores averaged over seeds, otherwise that of `auc_difference`.
    """
    adjusted: float
    """The p value adjusted by Holm's method, over all rows compared with this reference."""


@dataclass(frozen=True)
class References:
    """The single modalities that rows are compared with, and the chance levels."""

    test_best: str
    """The best single modality on the test clips.

    This is the stricter reference, because it is selected on the test clips.
    """
    validation_best: str
    """The best single modality on the validation clips."""
    chance: float
    """Chance level of the study's metric."""
    chance_accuracy: float
    """Chance level of the accuracy."""
    how: str
    """Table note: how the metric is averaged, which test gives p, and whether there are few groups."""


@dataclass(frozen=True)
class StudyRow:
    """Results of one model over all seeds and folds."""

    name: str
    single: bool
    """Whether it uses a single modality."""
    value: Difference
    """The study's metric with its interval."""
    accuracy: Difference
    """The accuracy with its interval."""
    validation: float
    """Mean of the metric on held-out training clips."""
    against_test_best: Comparison | None
    """Comparison with `References.test_best`. None for that reference."""
    against_validation_best: Comparison | None
    """Comparison with `References.validation_best`. None for that reference."""
    shuffled: float | None
    """The metric with gate weights taken from other clips. None without a gate."""
    mean_gate: float | None
    """The metric with gate weights replaced by their mean. None without a gate."""
    weights: dict[str, float]
    entropy: float | None
    spread: float
    subsets: dict[str, float]
    noise: dict[str, dict[str, float]]
    held_out: dict[str, dict[str, float]]
    cost: RowCost
    oracle_noise: dict[str, dict[str, float]] = field(default_factory=dict)
    """As `noise`, with weights that know which stream is corrupted. Empty for a row that joins features."""
    oracle_held_out: dict[str, dict[str, float]] = field(default_factory=dict)
    """As `held_out`, with such weights."""

    @property
    def noise_area(self) -> float:
        """Mean over modalities of the area under the metric against the noise level of that modality."""
        return float(np.mean([curve_area(curve) for curve in self.noise.values()]))


def study_rows(
    cells: Sequence[Cell],
    single: Sequence[str],
    groups: Mapping[str, str],
    costs: Mapping[str, RowCost],
    metric: Metric,
) -> tuple[list[StudyRow], References]:
    """Returns the rows in the order of the cells, and the references.

    - `cells`: every row needs a cell for the same seeds and folds.
    - `single`: names of the rows with a single modality. References are chosen among them.
    - `groups`: group by clip key. The bootstrap draws groups whole. A clip without a group is its own group.
    - `costs`: cost by row.
    - `metric`: accuracy, which counts every clip equally, or an AUC, which is averaged over folds.
    """
    names = list(dict.fromkeys(cell.row for cell in cells))
    pools = {name: _pool([cell for cell in cells if cell.row == name]) for name in names}
    units = [groups.get(key) or key for key in pools[names[0]].keys]

    def judged(figure: Metric) -> dict[str, Difference]:
        return {
            name: paired_bootstrap(lambda r, s, p=pool: p.measure(figure, r, s), units, pool.seeds, DRAWS)
            for name, pool in pools.items()
        }

    values = judged(metric)
    accuracies = values if metric is top_k_accuracy else judged(top_k_accuracy)
    test_best = max(single, key=lambda name: values[name].value)
    validation_best = max(single, key=lambda name: pools[name].validation)
    strict = _compared(pools, test_best, units, metric)
    chosen = strict if validation_best == test_best else _compared(pools, validation_best, units, metric)
    rows = []
    for name in names:
        mine = [cell for cell in cells if cell.row == name]
        # As in the metric of the row: an accuracy counts clips equally, an AUC folds.
        weigh = [len(cell.keys) if metric is top_k_accuracy else 1 for cell in mine]
        entropies = [cell.entropy for cell in mine if cell.entropy is not None]
        rows.append(
            StudyRow(
                name,
                name in single,
                values[name],
                accuracies[name],
                pools[name].validation,
                strict.get(name),
                chosen.get(name),
                _control([cell.shuffled for cell in mine], weigh),
                _control([cell.mean_gate for cell in mine], weigh),
                _mean([cell.weights for cell in mine]),
                float(np.mean(entropies)) if entropies else None,
                float(np.mean([cell.spread for cell in mine])),
                _mean([cell.subsets for cell in mine], weigh),
                _curves([cell.noise for cell in mine], weigh),
                _curves([cell.held_out for cell in mine], weigh),
                costs[name],
                _curves([cell.oracle_noise for cell in mine], weigh),
                _curves([cell.oracle_held_out for cell in mine], weigh),
            )
        )
    labels = pools[test_best].labels
    majority = float(np.bincount(labels).max() / len(labels))
    # Any other metric of a study is an AUC, whose chance level is one half.
    chance = majority if metric is top_k_accuracy else 0.5
    folds = pools[test_best].folds
    if metric is top_k_accuracy:
        how = f"p: {which_test(units)}, on scores averaged over seeds."
    else:
        over = f"AUC: mean over {len(folds.sizes)} folds. " if len(folds.sizes) > 1 else ""
        how = f"{over}p: {auc_test(units)}, seeds included."
    return rows, References(test_best, validation_best, chance, majority, how + few_groups_note(units))


def study_record(rows: Sequence[StudyRow], references: References) -> dict[str, dict[str, Any]]:
    """Returns every result of every row by name, as plain data for JSON."""
    common = asdict(references)
    return {row.name: asdict(row) | {"noise_area": row.noise_area} | common for row in rows}


def curve_area(curve: Mapping[str, float]) -> float:
    """Returns the area under a metric by noise level, divided by the range of levels. With one level: the metric."""
    return area_under(list(curve.values()), [float(level) for level in curve]) if len(curve) > 1 else curve["0"]


@dataclass(frozen=True)
class _Pool:
    """Test clips of one row over all folds."""

    probabilities: NDArray[np.float64]
    """Class probabilities (seeds, n, C)."""
    labels: NDArray[np.int64]
    keys: list[str]
    folds: Folds
    validation: float
    """Mean of the validation metric."""

    @property
    def seeds(self) -> int:
        return len(self.probabilities)

    def right(self) -> NDArray[np.bool_]:
        """Returns which clips are correct, for scores averaged over seeds."""
        return self.probabilities.mean(axis=0).argmax(axis=1) == self.labels

    def measure(self, metric: Metric, rows: NDArray[np.int64], seed: int) -> float:
        def of(part: NDArray[np.int64]) -> float:
            return metric(self.probabilities[seed, part], self.labels[part])

        return of(rows) if metric is top_k_accuracy else float(self.folds.mean(of, rows))


def _compared(
    pools: Mapping[str, _Pool], reference: str, units: Sequence[str], metric: Metric
) -> dict[str, Comparison]:
    """Compares every other row with the `reference`, on the same clips and seeds."""
    other = pools[reference]
    tested = {name: pool for name, pool in pools.items() if name != reference}
    found: dict[str, tuple[Difference, float]] = {}
    for name, pool in tested.items():
        if metric is top_k_accuracy:
            difference = paired_bootstrap(
                lambda r, s, p=pool: p.measure(metric, r, s) - other.measure(metric, r, s), units, pool.seeds, DRAWS
            )
            found[name] = difference, paired_test(other.right(), pool.right(), units)
        else:
            folds = (other.folds, pool.folds)
            difference = auc_difference(
                other.probabilities, pool.probabilities, pool.labels, metric, units, folds, DRAWS
            )
            found[name] = difference, difference.p
    adjusted = holm([p for _, p in found.values()]).tolist()
    return {name: Comparison(*entry, p) for (name, entry), p in zip(found.items(), adjusted, strict=True)}


def _pool(cells: Sequence[Cell]) -> _Pool:
    seeds = sorted({cell.seed for cell in cells})
    by_seed = [sorted((cell for cell in cells if cell.seed == seed), key=lambda cell: cell.fold) for seed in seeds]
    return _Pool(
        np.array([[row for cell in folds for row in cell.probabilities] for folds in by_seed]),
        np.array([label for cell in by_seed[0] for label in cell.labels]),
        [key for cell in by_seed[0] for key in cell.keys],
        Folds.of([str(cell.fold) for cell in by_seed[0] for _ in cell.keys], sum(len(c.keys) for c in by_seed[0])),
        float(np.nanmean([cell.validation for cell in cells])),
    )


def _mean(entries: Sequence[Mapping[str, float]], weights: Sequence[float] | None = None) -> dict[str, float]:
    return {name: _average([entry[name] for entry in entries], weights) for name in entries[0]}


def _curves(
    entries: Sequence[Mapping[str, Mapping[str, float]]], weights: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Returns the mean over cells of a metric by modality and level."""
    return {modality: _mean([entry[modality] for entry in entries], weights) for modality in entries[0]}


def _control(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Returns the mean of a control over cells. None for a row without a gate."""
    known = [value for value in values if value is not None]
    return _average(known, weights) if len(known) == len(values) else None


def _average(values: Sequence[float], weights: Sequence[float] | None) -> float:
    """Returns the weighted mean. Values that are not finite are skipped, as in a fold with a single class."""
    known = np.isfinite(values)
    if not known.any():
        return float("nan")
    given = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    return float(np.average(np.asarray(values, float)[known], weights=given[known]))
