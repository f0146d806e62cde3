"""Tables and figures of a fusion study."""

from collections.abc import Sequence

from ..records import Curves, Table
from .study_summary import Comparison, References, StudyRow, curve_area

# Standard deviation of a gate's weights over clips below which it is called static.
STATIC = 0.02
ORACLE_NOTE = (
    " Oracle: the product of the row's experts, in which the corrupted stream has one known weight, the best on the "
    "test clips themselves, and clean streams weight 1. It is an upper reference and not a model."
)


def study_tables(rows: Sequence[StudyRow], references: References, metric: str, note: str) -> list[Table]:
    """Returns the tables of a study: main results, gates and costs, subsets, and noise on each modality."""
    strict, chosen, chance = references.test_best, references.validation_best, references.chance
    headline = Table(
        f"Fusion mechanisms, {metric}",
        [
            *("row", metric, "low", "high", "chance"),
            *(f"against {strict}, best on test", "low", "high", "p", "p (Holm)"),
            *(f"against {chosen}, best on validation", "low", "high", "p", "p (Holm)"),
            *("weights shuffled", "mean gate"),
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
                row.mean_gate,
            ]
            for row in rows
        ],
        f"{note}. 95 % intervals by bootstrap over seeds and groups of clips. {references.how} Holm: adjusted over "
        f"all rows of the comparison. The stricter comparison is with "
        f"{strict}, the best single modality on the test clips. "
        + (
            "It is also the best on validation clips."
            if chosen == strict
            else f"{chosen} is the best on validation clips. A gain over {chosen} alone may come from {strict}."
        )
        + " Chance: "
        + ("share of the largest class." if metric == "accuracy" else "equal scores for all clips.")
        + " Weights shuffled: gate weights of other test clips with the same modalities. Mean gate: the mean of "
        "these weights. A gate that weighs single clips loses by both.",
    )
    modalities = list(dict.fromkeys(name for row in rows for name in row.weights))
    gates = Table(
        "Gates and cost",
        [
            "row",
            *(f"weight {name}" for name in modalities),
            "entropy",
            "std of weights",
            "parameters",
            "multiply-adds",
            "ms",
        ],
        [
            [
                row.name,
                *(row.weights.get(name) for name in modalities),
                row.entropy,
                _spread_cell(row),
                row.cost.parameters,
                row.cost.multiply_adds,
                row.cost.milliseconds,
            ]
            for row in rows
        ],
        "Weight: mean gate weight. Entropy: of the weights as shares, 1 if all are equal. Std of weights: standard "
        f"deviation of a weight over clips with the same modalities, static below {STATIC}. "
        "Multiply-adds and milliseconds (one thread): one segment, encoders included.",
    )
    subsets = list(dict.fromkeys(name for row in rows for name in row.subsets))
    missing = Table(
        f"Missing modalities, {metric}",
        ["row", *subsets, "chance"],
        [
            [row.name, *(row.subsets.get(name) for name in subsets), chance]
            for row in rows
            if not row.single and len(row.weights) > 1
        ],
        "Every test clip has only these modalities.",
    )
    noise = [_noise_table(rows, name, metric, chance) for name in _noise_curves(rows)]
    unseen = _held_out_table(rows, metric, chance)
    if metric != "accuracy":
        share = references.chance_accuracy
        correct = [[row.name, row.accuracy.value, row.accuracy.low, row.accuracy.high, share] for row in rows]
        note = "Predicted: the class with the highest score. Intervals as above. Chance: share of the largest class."
        return [
            headline,
            Table("Accuracy", ["row", "accuracy", "low", "high", "chance"], correct, note),
            gates,
            missing,
            *noise,
            *unseen,
        ]
    return [headline, gates, missing, *noise, *unseen]


def _noise_table(rows: Sequence[StudyRow], modality: str, metric: str, chance: float) -> Table:
    """Returns the table of noise on one modality, with the oracle beside each level if a row has one."""
    scored = [row for row in rows if modality in row.noise]
    levels = list(scored[0].noise[modality])
    known = any(row.oracle_noise for row in scored)
    body = []
    for row in scored:
        curve, oracle = row.noise[modality], row.oracle_noise.get(modality, {})
        figures = [(curve[level], oracle.get(level)) for level in levels]
        figures.append((curve_area(curve), curve_area(oracle) if oracle else None))
        body.append([row.name, *_beside(figures, known), chance])
    return Table(
        f"Noise on {modality}, {metric}",
        ["row", *_with_oracle([*levels, "area"], known), "chance"],
        body,
        "Level: standard deviation of the noise relative to that of the training data, for sound to that of the "
        "clip. Area: under the curve, divided by the range of levels." + (ORACLE_NOTE if known else ""),
    )


def _with_oracle(columns: Sequence[str], known: bool) -> list[str]:
    return [title for column in columns for title in ((column, f"oracle, {column}") if known else (column,))]


def _beside(figures: Sequence[tuple[float | None, float | None]], known: bool) -> list[float | None]:
    return [figure for pair in figures for figure in (pair if known else pair[:1])]


def _held_out_table(rows: Sequence[StudyRow], metric: str, chance: float) -> list[Table]:
    """Returns the table of corruptions that no training contains, if there are any."""
    columns = list(
        dict.fromkeys((name, kind) for row in rows for name, kinds in row.held_out.items() for kind in kinds)
    )
    if not columns:
        return []
    known = any(row.oracle_held_out for row in rows)
    body = []
    for row in rows:
        figures = [
            (row.held_out.get(name, {}).get(kind), row.oracle_held_out.get(name, {}).get(kind))
            for name, kind in columns
        ]
        body.append([row.name, *_beside(figures, known), chance])
    return [
        Table(
            f"Corruptions held out of training, {metric}",
            ["row", *_with_oracle([f"{name}: {kind}" for name, kind in columns], known), "chance"],
            body,
            "One modality of every test clip is corrupted in a way that no training contains. Numbers: level of the "
            "corruption, as in the robustness tables." + (ORACLE_NOTE if known else ""),
        )
    ]


def study_figures(rows: Sequence[StudyRow], metric: str) -> list[Curves]:
    """Returns one figure per modality with the metric of each row under noise on that modality."""
    return [
        Curves(
            f"Noise on {name}",
            "noise over signal",
            metric,
            {row: [(float(level), value) for level, value in curve.items()] for row, curve in curves.items()},
        )
        for name, curves in _noise_curves(rows).items()
    ]


def _noise_curves(rows: Sequence[StudyRow]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the metric by noisy modality, row and level."""
    modalities = dict.fromkeys(name for row in rows for name in row.noise)
    return {name: {row.name: row.noise[name] for row in rows if name in row.noise} for name in modalities}


def _comparison_cells(found: Comparison | None) -> tuple[float | None, ...]:
    if found is None:
        return (None,) * 5
    return (found.difference.value, found.difference.low, found.difference.high, found.p, found.adjusted)


def _spread_cell(row: StudyRow) -> float | str | None:
    """Returns the standard deviation of the weights, with the word `static` below `STATIC`. None for one modality."""
    if row.single or len(row.weights) < 2:
        return None
    return f"{row.spread:.3f}, static" if row.spread < STATIC else row.spread
