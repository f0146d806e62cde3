"""What is left of a model when its sensors fail: curves over levels of corruption, areas, gate weights along them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ..metrics.chance import majority_share
from ..metrics.classification import bootstrap_interval, roc_auc
from .conditions import ALL, MISSING, Condition, Sweep, subsets
from .corruptions import AXES

DRAWS = 500


@dataclass(frozen=True)
class Curve:
    """One `modality`, or all, along one `axis`; a value for each of `levels`, NaN where no clip can be measured.

    `accuracy` with its 95 % interval `low` to `high`; `auc` of two classes, else none; `single`: of the modality that
    is best alone under the same corruption, chosen on these clips, which favours it; `weights`: mean gate weight by
    modality; `clips`: how many were measured. `area` under the accuracy, from 0 to 1, with its interval, and
    `single_area`; `correlation`: Spearman's, of the corrupted modality's weight with the severity over clips and
    levels, none where the weight never changes. `absent`: clips without the modality; `left_out`: others that cannot
    be measured at some level; `chance`: the accuracy of always naming the commonest class, at each level's clips.
    """

    axis: str
    modality: str
    levels: list[float]
    accuracy: list[float]
    low: list[float]
    high: list[float]
    auc: list[float] | None
    single: list[float]
    weights: dict[str, list[float]]
    clips: list[int]
    area: float
    area_low: float
    area_high: float
    single_area: float
    correlation: float | None
    absent: int
    left_out: int
    chance: list[float]

    @property
    def clean(self) -> float:
        """The accuracy where nothing is corrupted."""
        return self.accuracy[self.levels.index(AXES[self.axis].clean)]

    @property
    def kept(self) -> float:
        """The area relative to what it would be if nothing were lost."""
        return self.area / self.clean if self.clean else float("nan")

    @property
    def worst(self) -> tuple[float, float]:
        """The lowest accuracy and its level."""
        place = int(np.nanargmin(self.accuracy))
        return self.accuracy[place], self.levels[place]

    @property
    def title(self) -> str:
        """The modality and what is wrong with it."""
        name = "all modalities" if self.modality == ALL else self.modality
        return f"{name}: {AXES[self.axis].title}"


@dataclass(frozen=True)
class Subset:
    """Accuracy, with its 95 % interval, with only `present` of a clip's modalities; mean gate `weights`; `chance`: of
    always naming the commonest class of these clips."""

    present: tuple[str, ...]
    accuracy: float
    low: float
    high: float
    auc: float | None
    weights: dict[str, float]
    clips: int
    chance: float


@dataclass(frozen=True)
class Robustness:
    """All subsets and curves of one sweep; `unmeasured`: axis and modality of those that no clip allows."""

    missing: list[Subset]
    curves: list[Curve]
    unmeasured: list[tuple[str, str]]


def area_under(values: Sequence[float] | NDArray[np.floating], places: Sequence[float] | None = None) -> float:
    """Trapezoid area under (n,) values over `places`, evenly apart if not given, relative to their extent.

    The mean height of the curve: within [0, 1] for shares. Values of NaN are left out; NaN where fewer than two are
    left.
    """
    heights = np.asarray(values, float)
    x = np.arange(len(heights)) if places is None else np.asarray(places, float)
    known = np.isfinite(heights)
    if known.sum() < 2:
        return float("nan")
    return float(np.trapezoid(heights[known], x[known]) / np.ptp(x[known]))


def measure_robustness(sweep: Sweep, units: Sequence[str], draws: int = DRAWS) -> Robustness:
    """Every subset and curve of the sweep; intervals by bootstrap over `units` (n,), a clip's group or itself."""
    places = {condition: number for number, condition in enumerate(sweep.conditions)}
    missing = [
        _subset(sweep, places[Condition(MISSING, "+".join(names))], names, units, draws)
        for names in subsets(sweep.modalities)
        if Condition(MISSING, "+".join(names)) in places
    ]
    keys = curve_keys(sweep)
    asked = {(c.axis, c.modality) for c in sweep.conditions if c.axis != MISSING and not c.alone}
    curves = [_curve(sweep, places, *key, units, draws) for key in keys]
    return Robustness(missing, curves, sorted(asked - set(keys)))


def curve_keys(sweep: Sweep) -> list[tuple[str, str]]:
    """Axis and modality of every curve that some clip allows, modality by modality, and then of all together."""
    measured = zip(sweep.conditions, sweep.valid, strict=True)
    keys = {(c.axis, c.modality) for c, valid in measured if c.axis != MISSING and not c.alone and valid.any()}
    modalities, axes = [*sweep.modalities, ALL], list(AXES)
    return sorted(keys, key=lambda key: (modalities.index(key[1]), axes.index(key[0])))


def right_answers(sweep: Sweep, axis: str, modality: str) -> NDArray[np.float64]:
    """Whether each clip is guessed right at each level (L, n), NaN where it cannot be measured there."""
    found = {condition: number for number, condition in enumerate(sweep.conditions)}
    rows = [found[Condition(axis, modality, level)] for level in AXES[axis].levels]
    return np.stack([_right(sweep, row) for row in rows])


def level_means(right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row's known values (L, n); NaN where there are none."""
    known = np.isfinite(right)
    count = known.sum(axis=1)
    return np.where(count, np.where(known, right, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _right(sweep: Sweep, place: int) -> NDArray[np.float64]:
    right = sweep.probabilities[place].argmax(axis=1) == sweep.labels
    return np.where(sweep.valid[place], right, np.nan)


def _subset(sweep: Sweep, place: int, names: tuple[str, ...], units: Sequence[str], draws: int) -> Subset:
    right = _right(sweep, place)
    low, high = _interval(right[None], units, draws)
    return Subset(
        names,
        float(level_means(right[None])[0]),
        low,
        high,
        _auc(sweep, place),
        _weights(sweep, place),
        int(sweep.valid[place].sum()),
        majority_share(sweep.labels[sweep.valid[place]]),
    )


def _curve(
    sweep: Sweep, places: Mapping[Condition, int], axis: str, modality: str, units: Sequence[str], draws: int
) -> Curve:
    levels = list(AXES[axis].levels)
    rows = [places[Condition(axis, modality, level)] for level in levels]
    right = right_answers(sweep, axis, modality)
    means = level_means(right)
    bands = [_interval(row[None], units, draws) for row in right]
    area_low, area_high = _interval(right, units, draws, area=True)
    single = [_best_single(sweep, places, axis, modality, level) for level in levels]
    aucs = [_auc(sweep, row) for row in rows]
    weights = [_weights(sweep, row) for row in rows]
    absent = 0 if modality == ALL else int((~sweep.present[:, sweep.modalities.index(modality)]).sum())
    clips = [int(sweep.valid[row].sum()) for row in rows]
    return Curve(
        axis,
        modality,
        levels,
        means.tolist(),
        [low for low, _ in bands],
        [high for _, high in bands],
        None if len(sweep.classes) != 2 else [float("nan") if auc is None else auc for auc in aucs],
        single,
        {name: [entry[name] for entry in weights] for name in sweep.modalities},
        clips,
        area_under(means),
        area_low,
        area_high,
        area_under(single),
        None if modality == ALL else _correlation(sweep, rows, axis, modality),
        absent,
        len(sweep.keys) - absent - min(clips),
        [majority_share(sweep.labels[sweep.valid[row]]) for row in rows],
    )


def _interval(
    right: NDArray[np.float64], units: Sequence[str], draws: int, area: bool = False
) -> tuple[float, float]:
    """Of the area under rows (L, n), or of the mean of one; none of that is known where no clip is."""
    if not np.isfinite(right).any():
        return float("nan"), float("nan")

    def statistic(rows: NDArray[np.int64]) -> float:
        means = level_means(right[:, rows])
        return area_under(means) if area else float(means[0])

    return bootstrap_interval(statistic, units, draws=draws)


def _best_single(sweep: Sweep, places: Mapping[Condition, int], axis: str, modality: str, level: float) -> float:
    """The best accuracy of one modality alone on the clips of this condition, corrupted if that is the one."""
    valid = sweep.valid[places[Condition(axis, modality, level)]]
    found = []
    for name in sweep.modalities:
        if modality in (name, ALL):
            condition = Condition(axis, name, level, alone=True)
        elif axis == "desync":
            # Measured at the same views, which have room for the shift.
            condition = Condition(axis, name, AXES[axis].clean, alone=True)
        else:
            condition = Condition(MISSING, name)
        if condition in places and valid.any():
            right = sweep.probabilities[places[condition]].argmax(axis=1) == sweep.labels
            found.append(float(right[valid].mean()))
    return max(found, default=float("nan"))


def _auc(sweep: Sweep, place: int) -> float | None:
    valid = sweep.valid[place]
    if len(sweep.classes) != 2 or not valid.any():
        return None
    return roc_auc(sweep.probabilities[place, valid, 1], sweep.labels[valid] == 1)


def _weights(sweep: Sweep, place: int) -> dict[str, float]:
    kept = sweep.weights[place, sweep.valid[place]]
    means = kept.mean(axis=0) if len(kept) else np.full(len(sweep.modalities), np.nan)
    return dict(zip(sweep.modalities, means.tolist(), strict=True))


def _correlation(sweep: Sweep, rows: Sequence[int], axis: str, modality: str) -> float | None:
    column = sweep.modalities.index(modality)
    severity = [AXES[axis].severity(level) for level in AXES[axis].levels]
    weights = np.concatenate([sweep.weights[row, sweep.valid[row], column] for row in rows])
    severities = np.concatenate([np.full(sweep.valid[row].sum(), s) for row, s in zip(rows, severity, strict=True)])
    if len(weights) < 2 or np.ptp(weights) < 1e-6 or not np.ptp(severities):
        return None
    found: Any = spearmanr(severities, weights)
    return float(found.statistic)
