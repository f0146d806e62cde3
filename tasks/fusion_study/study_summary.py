"""A fusion study's cells as tables: intervals over seeds and groups, tests against two single modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.classification import top_k_accuracy
from ..metrics.significance import Difference, holm, mcnemar, paired_difference
from ..records import Curves, Table
from ..robustness.curves import area_under
from .study_cell import Cell, Metric

# Enough for the third digit of an interval, at a tenth of the time.
DRAWS = 2000


@dataclass(frozen=True)
class RowCost:
    """Learned `parameters`, `multiply_adds` and measured `milliseconds` for one segment, encoders included."""

    parameters: int
    multiply_adds: int
    milliseconds: float


@dataclass(frozen=True)
class Comparison:
    """A row's `difference` from a reference, the exact McNemar `p` on scores averaged over seeds, and Holm's
    `adjusted` over all rows that are compared with it."""

    difference: Difference
    p: float
    adjusted: float


@dataclass(frozen=True)
class References:
    """The single modalities that rows are compared with, and what guessing reaches.

    `test_best`: the best on the test clips, the stricter reading: it is picked on the clips it is compared on, so no
    gain is claimed that another single modality has as well. `validation_best`: the one that validation chose.
    `chance` and `chance_accuracy`: the study's metric and the accuracy without looking at a clip.
    """

    test_best: str
    validation_best: str
    chance: float
    chance_accuracy: float


@dataclass(frozen=True)
class StudyRow:
    """One row over all seeds and folds; `against_test_best`, `against_validation_best`: compared with the references,
    none for the reference itself; `accuracy`: beside a `value` that is of another metric."""

    name: str
    single: bool
    value: Difference
    accuracy: Difference
    validation: float
    against_test_best: Comparison | None
    against_validation_best: Comparison | None
    shuffled: float | None
    weights: dict[str, float]
    entropy: float | None
    spread: float
    subsets: dict[str, float]
    noise: dict[str, dict[str, float]]
    cost: RowCost

    @property
    def noise_area(self) -> float:
        """Mean over modalities of the area under the metric against the level of noise on it alone."""
        return float(np.mean([curve_area(curve) for curve in self.noise.values()]))


def study_rows(
    cells: Sequence[Cell],
    single: Sequence[str],
    groups: Mapping[str, str],
    costs: Mapping[str, RowCost],
    metric: Metric,
) -> tuple[list[StudyRow], References]:
    """Rows in the order of the cells, and what they are compared with, among the `single` ones.

    `groups`: unit of the bootstrap by clip key. Every row needs a cell for the same seeds and folds.
    """
    names = list(dict.fromkeys(cell.row for cell in cells))
    pools = {name: _pool([cell for cell in cells if cell.row == name]) for name in names}
    units = [groups.get(key, key) for key in pools[names[0]].keys]

    def judged(figure: Metric) -> dict[str, Difference]:
        return {
            name: paired_difference(lambda r, s, p=pool: p.measure(figure, r, s), units, pool.seeds, DRAWS)
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
        shuffled = [cell.shuffled for cell in mine if cell.shuffled is not None]
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
                float(np.mean(shuffled)) if shuffled else None,
                _mean([cell.weights for cell in mine]),
                float(np.mean(entropies)) if entropies else None,
                float(np.mean([cell.spread for cell in mine])),
                _mean([cell.subsets for cell in mine]),
                {m: _mean([cell.noise[m] for cell in mine]) for m in mine[0].noise},
                costs[name],
            )
        )
    labels = pools[test_best].labels
    majority = float(np.bincount(labels).max() / len(labels))
    # Every other metric of a study is an AUC, and equal scores have one half.
    chance = majority if metric is top_k_accuracy else 0.5
    return rows, References(test_best, validation_best, chance, majority)


def study_tables(rows: Sequence[StudyRow], references: References, metric: str, note: str) -> list[Table]:
    """The headline, what gates and sizes are, and what is left under each subset and noise."""
    strict, chosen, chance = references.test_best, references.validation_best, references.chance
    headline = Table(
        f"Fusion mechanisms, {metric}",
        [
            *("row", metric, "low", "high", "chance"),
            *(f"against {strict}, best on test", "low", "high", "p", "p (Holm)"),
            *(f"against {chosen}, best on validation", "low", "high", "p", "p (Holm)"),
            "weights shuffled",
        ],
        [
            [
                row.name,
                row.value.value,
                row.value.low,
                row.value.high,
                chance,
                *_comparison_cells(row.against_test_best),
                *_comparison_cells(row.against_validation_best),
                row.shuffled,
            ]
            for row in rows
        ],
        f"{note}; intervals 95 % by bootstrap over seeds and groups of clips; p: exact McNemar test on scores "
        f"averaged over seeds, Holm over all rows of the comparison; read first the difference from {strict}, the "
        "single modality that is best on the test clips (the stricter reading); "
        + (
            "validation chose the same one"
            if chosen == strict
            else f"{chosen} is the one that validation chose, and a gain over it alone may be {strict}'s"
        )
        + "; chance: "
        + ("the share of the largest class" if metric == "accuracy" else "equal scores for all clips"),
    )
    modalities = list(dict.fromkeys(name for row in rows for name in row.weights))
    gates = Table(
        "Gates and cost",
        ["row", *(f"weight {name}" for name in modalities), "entropy", "spread", "parameters", "multiply-adds", "ms"],
        [
            [
                row.name,
                *(row.weights.get(name) for name in modalities),
                row.entropy,
                row.spread,
                row.cost.parameters,
                row.cost.multiply_adds,
                row.cost.milliseconds,
            ]
            for row in rows
        ],
        "mean gate weight; entropy of the weights as shares, 1 where all are equal; spread: standard deviation of a "
        "weight over clips; multiply-adds and milliseconds (one thread) for one segment, encoders included",
    )
    subsets = list(dict.fromkeys(name for row in rows for name in row.subsets))
    missing = Table(
        f"Missing modalities, {metric}",
        ["row", *subsets, "chance"],
        [[row.name, *(row.subsets.get(name) for name in subsets), chance] for row in rows if not row.single],
        "only these modalities are present, for every test clip",
    )
    noise = [
        Table(
            f"Noise on {name}, {metric}",
            ["row", *next(iter(curves.values())), "area", "chance"],
            [[row, *curve.values(), curve_area(curve), chance] for row, curve in curves.items()],
            "level: deviation of the noise over that of the training set's values, or of the clip's own sound; area "
            "under the curve, relative to the levels",
        )
        for name, curves in _noise_curves(rows).items()
    ]
    if metric != "accuracy":
        share = references.chance_accuracy
        correct = [[row.name, row.accuracy.value, row.accuracy.low, row.accuracy.high, share] for row in rows]
        note = "of the class with the highest score; intervals as above; chance: the share of the largest class"
        return [
            headline,
            Table("Accuracy", ["row", "accuracy", "low", "high", "chance"], correct, note),
            gates,
            missing,
            *noise,
        ]
    return [headline, gates, missing, *noise]


def study_figures(rows: Sequence[StudyRow], metric: str) -> list[Curves]:
    """For every modality the curve of each row that has it, under noise on it alone."""
    return [
        Curves(
            f"Noise on {name}",
            "noise over signal",
            metric,
            {row: [(float(level), value) for level, value in curve.items()] for row, curve in curves.items()},
        )
        for name, curves in _noise_curves(rows).items()
    ]


def study_record(rows: Sequence[StudyRow], references: References) -> dict[str, dict[str, Any]]:
    """Every figure of every row by name, as JSON holds it."""
    common = asdict(references)
    return {row.name: asdict(row) | {"noise_area": row.noise_area} | common for row in rows}


def curve_area(curve: Mapping[str, float]) -> float:
    """Area under a metric by level of noise, relative to the levels; the metric itself where there is but one."""
    return area_under(list(curve.values()), [float(level) for level in curve]) if len(curve) > 1 else curve["0"]


def _noise_curves(rows: Sequence[StudyRow]) -> dict[str, dict[str, dict[str, float]]]:
    """By noisy modality and row, the metric by level."""
    modalities = dict.fromkeys(name for row in rows for name in row.noise)
    return {name: {row.name: row.noise[name] for row in rows if name in row.noise} for name in modalities}


@dataclass(frozen=True)
class _Pool:
    """One row's test clips over all folds: `probabilities` (seeds, n, C), and the mean validation metric."""

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    keys: list[str]
    validation: float

    @property
    def seeds(self) -> int:
        return len(self.probabilities)

    def right(self) -> NDArray[np.bool_]:
        """Which clips are guessed right by the mean of the scores over seeds."""
        return self.probabilities.mean(axis=0).argmax(axis=1) == self.labels

    def measure(self, metric: Metric, rows: NDArray[np.int64], seed: int) -> float:
        return metric(self.probabilities[seed, rows], self.labels[rows])


def _compared(
    pools: Mapping[str, _Pool], reference: str, units: Sequence[str], metric: Metric
) -> dict[str, Comparison]:
    """Every row but the `reference`, compared with it on the same clips and seeds."""
    other = pools[reference]
    tested = {name: pool for name, pool in pools.items() if name != reference}
    plain = [mcnemar(pool.right(), other.right()) for pool in tested.values()]
    found = {}
    for (name, pool), p, adjusted in zip(tested.items(), plain, holm(plain).tolist(), strict=True):
        difference = paired_difference(
            lambda r, s, p=pool: p.measure(metric, r, s) - other.measure(metric, r, s), units, pool.seeds, DRAWS
        )
        found[name] = Comparison(difference, p, adjusted)
    return found


def _comparison_cells(found: Comparison | None) -> tuple[float | None, ...]:
    if found is None:
        return (None,) * 5
    return (found.difference.value, found.difference.low, found.difference.high, found.p, found.adjusted)


def _pool(cells: Sequence[Cell]) -> _Pool:
    seeds = sorted({cell.seed for cell in cells})
    by_seed = [sorted((cell for cell in cells if cell.seed == seed), key=lambda cell: cell.fold) for seed in seeds]
    return _Pool(
        np.array([[row for cell in folds for row in cell.probabilities] for folds in by_seed]),
        np.array([label for cell in by_seed[0] for label in cell.labels]),
        [key for cell in by_seed[0] for key in cell.keys],
        float(np.mean([cell.validation for cell in cells])),
    )


def _mean(entries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([entry[name] for entry in entries])) for name in entries[0]}
