"""Tables and figures of robustness."""

from collections.abc import Mapping

from ..records import Cell, LevelCurves, Table
from .conditions import ALL, MISSING
from .corruptions import AXES
from .curves import Curve, Robustness

_COLUMNS = ["corrupted", "by", "clean", "area", "low", "high", "chance", "kept", "worst", "at", "over single"]
_COLUMNS += ["weight and severity", "in training", "clips", "left out"]


def robustness_tables(found: Robustness, note: str, trained: Mapping[str, str]) -> list[Table]:
    """Returns tables of modality subsets, one modality corrupted, all corrupted, and every level.

    - `trained`: by axis, whether the corruption was part of training.
    - `note`: what was measured.
    """
    binary = found.missing[0].auc is not None
    auc = ["AUC"] if binary else []
    missing = Table(
        "Missing modalities",
        ["present", "accuracy", "low", "high", "chance", *auc, "clips"],
        [
            [
                *("+".join(row.present), row.accuracy, row.low, row.high, row.chance),
                *([row.auc] if binary else []),
                row.clips,
            ]
            for row in found.missing
        ],
        f"{note}. Chance: always predicting the most frequent class"
        f"{' (AUC: 0.5). AUC: mean over folds' if binary else ''}. "
        "Only the named modalities are present, in clips that have at least one of them. Missing modalities in "
        f"training: {trained.get(MISSING, 'unknown')}.{_unmeasured(found)}",
    )
    explained = (
        "Area: under the accuracy, with levels evenly spaced, from 0 to 1. Low, high: its 95 % interval by group. "
        "Kept: area divided by the clean accuracy. Over single: area divided by that of the best single modality "
        "under the same corruption, selected on these clips. Weight and severity: Spearman's correlation of the "
        "corrupted modality's gate weight with the level."
    )
    single = [curve for curve in found.curves if curve.modality != ALL]
    together = [curve for curve in found.curves if curve.modality == ALL]
    tables = [missing]
    same = "The same level of noise on every modality. Columns as in the table of one modality."
    for title, curves, how in (
        ("One modality corrupted", single, explained),
        ("All modalities corrupted", together, same),
    ):
        if curves:
            tables.append(Table(title, _COLUMNS, [_row(curve, trained) for curve in curves], how))
    tables.append(
        Table(
            "Every level",
            [
                *("corrupted", "by", "level", "accuracy", "low", "high", "chance"),
                *(*auc, "best single", "own weight", "clips"),
            ],
            [row for curve in found.curves for row in _level_rows(curve)],
            "Own weight: gate weight of the corrupted modality, mean over clips.",
            folded=True,
        )
    )
    return tables


def _unmeasured(found: Robustness) -> str:
    names = ", ".join(f"{modality} {axis}" for axis, modality in found.unmeasured)
    return f" No clip can be measured for {names}." if names else ""


def _row(curve: Curve, trained: Mapping[str, str]) -> list[Cell]:
    axis = AXES[curve.axis]
    worst, level = curve.worst
    reasons = [f"{curve.absent} without it"] if curve.absent else []
    if curve.left_out:
        reasons.append(f"up to {curve.left_out} {axis.left_out}".strip())
    return [
        curve.modality,
        axis.title,
        curve.clean,
        curve.area,
        curve.area_low,
        curve.area_high,
        max(curve.chance),
        curve.kept,
        worst,
        axis.label(level),
        curve.area / curve.single_area if curve.single_area else None,
        curve.correlation,
        trained.get(curve.axis, "unknown"),
        max(curve.clips),
        ", ".join(reasons) or "none",
    ]


def _level_rows(curve: Curve) -> list[list[Cell]]:
    own = curve.weights.get(curve.modality)
    return [
        [
            curve.modality,
            AXES[curve.axis].title,
            AXES[curve.axis].label(level),
            curve.accuracy[place],
            curve.low[place],
            curve.high[place],
            curve.chance[place],
            *([] if curve.auc is None else [curve.auc[place]]),
            curve.single[place],
            None if own is None else own[place],
            curve.clips[place],
        ]
        for place, level in enumerate(curve.levels)
    ]


def robustness_figures(found: Robustness) -> list[LevelCurves]:
    """Returns a figure per curve, with the gate weights at the same levels below."""
    return [
        LevelCurves(
            curve.title,
            AXES[curve.axis].measured,
            "accuracy",
            [f"{level:g}" for level in curve.levels],
            {"fused": curve.accuracy, "best single": curve.single},
            {"fused": list(zip(curve.low, curve.high, strict=True))},
            curve.weights,
        )
        for curve in found.curves
    ]
