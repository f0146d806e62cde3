"""Comparison of the robustness of runs, by paired differences of areas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError
from ..metrics.auc_difference import auc_test
from ..metrics.classification import bootstrap_interval
from ..metrics.significance import FEW_GROUPS, Difference, few_groups_note, holm, paired_bootstrap, sign_flip
from ..records import LevelCurves, Table
from .conditions import ALL, SWEEP, Sweep, load_sweep
from .corruptions import AXES
from .curves import DRAWS, area_under, curve_keys, level_means, right_answers


@dataclass(frozen=True)
class AreaDifference:
    """Difference of the areas under accuracy of two runs, for one curve."""

    first: str
    second: str
    axis: str
    modality: str
    areas: tuple[float, float]
    """Area of the first and of the second run."""
    gain: Difference
    """Second minus first."""
    adjusted: float
    """p value adjusted by Holm's method, over all curves and pairs."""
    how: str
    """Table note: the test that gives p, and whether there are few groups."""


@dataclass(frozen=True)
class Swept:
    """Sweep of one run, with clips sorted by key."""

    name: str
    sweep: Sweep
    units: list[str]
    """Group of each clip. The bootstrap draws groups whole."""


def load_swept(names: Sequence[str], runs: Sequence[Path]) -> list[Swept]:
    """Loads the sweeps of `runs`. Returns nothing if a run has no sweep.

    Raises `RequestError` for sweeps of different clips or seeds.
    """
    paths = [run / "results" / SWEEP for run in runs]
    if not all(path.is_file() for path in paths):
        return []
    found = []
    for name, path in zip(names, paths, strict=True):
        sweep, units = load_sweep(path)
        order = np.argsort(sweep.keys, kind="stable")
        found.append(Swept(name, sweep.rows(order), [units[number] for number in order]))
    first = found[0]
    for other in found[1:]:
        if other.sweep.keys != first.sweep.keys or other.sweep.seed != first.sweep.seed:
            raise RequestError(
                f"'{first.name}' and '{other.name}' were measured with different clips or another --seed: run "
                "`modalgate robustness` on both with the same options"
            )
    return found


def compare_areas(swept: Sequence[Swept], draws: int = 1000) -> list[AreaDifference]:
    """Compares every pair of runs along every curve that both have, on clips measured in both.

    p comes from the bootstrap over groups, or from sign flips over groups if there are fewer than `FEW_GROUPS`. p
    values are adjusted over all comparisons.
    """
    found: list[tuple[str, str, str, str, tuple[float, float], Difference]] = []
    for first, second in combinations(swept, 2):
        for axis, modality in _common([first, second]):
            pair = [right_answers(one.sweep, axis, modality) for one in (first, second)]
            both = np.isfinite(pair[0]) & np.isfinite(pair[1])
            if (both.any(axis=1)).sum() < 2:
                continue
            mine, theirs = (np.where(both, right, np.nan) for right in pair)

            def gain(rows: NDArray[np.int64], seed: int, mine: NDArray = mine, theirs: NDArray = theirs) -> float:
                return area_under(level_means(theirs[:, rows])) - area_under(level_means(mine[:, rows]))

            areas = (area_under(level_means(mine)), area_under(level_means(theirs)))
            difference = paired_bootstrap(gain, first.units, draws=draws)
            if len(set(first.units)) < FEW_GROUPS:

                def flipped(exchanged: NDArray[np.bool_], mine: NDArray = mine, theirs: NDArray = theirs) -> float:
                    pair = np.where(exchanged, theirs, mine), np.where(exchanged, mine, theirs)
                    return area_under(level_means(pair[1])) - area_under(level_means(pair[0]))

                difference = replace(difference, p=sign_flip(flipped, first.units))
            found.append((first.name, second.name, axis, modality, areas, difference))
    adjusted = holm([entry[-1].p for entry in found])
    how = f"p: {auc_test(swept[0].units)}.{few_groups_note(swept[0].units)}"
    return [AreaDifference(*entry, float(p), how) for entry, p in zip(found, adjusted, strict=True)]


def area_table(differences: Sequence[AreaDifference]) -> Table:
    """Returns a table of the areas of both runs and their difference."""
    return Table(
        "Robustness, second less first",
        ["pair", "corrupted", "by", "first", "second", "gain", "low", "high", "p", "Holm"],
        [
            [
                f"{entry.second} - {entry.first}",
                entry.modality,
                AXES[entry.axis].title,
                *entry.areas,
                entry.gain.value,
                entry.gain.low,
                entry.gain.high,
                entry.gain.p,
                entry.adjusted,
            ]
            for entry in differences
        ],
        "First, second: area under accuracy over the levels, on the same corrupted clips. Low, high: 95 % interval "
        "of the gain, by paired bootstrap over groups. Holm: p adjusted for all pairs and curves. "
        + (differences[0].how if differences else ""),
    )


def area_figures(swept: Sequence[Swept]) -> list[LevelCurves]:
    """Returns a figure with the curves of all runs, for every curve that all have."""
    figures = []
    for axis, modality in _common(swept):
        right = {one.name: right_answers(one.sweep, axis, modality) for one in swept}
        bands = {one.name: [_band(row, one.units) for row in right[one.name]] for one in swept}
        name = "all modalities" if modality == ALL else modality
        figures.append(
            LevelCurves(
                f"{name}: {AXES[axis].title}",
                AXES[axis].measured,
                "accuracy",
                [f"{level:g}" for level in AXES[axis].levels],
                {run: level_means(rows).tolist() for run, rows in right.items()},
                bands,
            )
        )
    return figures


def _band(right: NDArray[np.float64], units: Sequence[str]) -> tuple[float, float]:
    if not np.isfinite(right).any():
        return float("nan"), float("nan")
    return bootstrap_interval(lambda rows: float(level_means(right[None, rows])[0]), units, draws=DRAWS)


def _common(swept: Sequence[Swept]) -> list[tuple[str, str]]:
    return [key for key in curve_keys(swept[0].sweep) if all(key in curve_keys(one.sweep) for one in swept)]
