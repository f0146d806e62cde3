"""Accuracy and gate weights over levels of corruption, and areas under the curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ..metrics.chance import majority_share
from ..metrics.classification import bootstrap_interval, roc_auc
from ..metrics.fold_means import Folds
from .conditions import ALL, MISSING, Condition, Sweep, subsets
from .corruptions import AXES

DRAWS = 500


@dataclass(frozen=True)
class Curve:
    """Results for one modality, or all, along one axis.

    Lists have one value per level, NaN without measured clips.
    """

    axis: str
    modality: str
    levels: list[float]
    accuracy: list[float]
    """Accuracy with all modalities."""
    low: list[float]
    """Lower end of its 95 % interval."""
    high: list[float]
    """Upper end of the interval."""
    auc: list[float] | None
    """ROC AUC, a mean over folds. None unless there are two classes."""
    single: list[float]
    """Accuracy of the best modality alone under the same corruption.

    It is selected on these clips, which favours it.
    """
    weights: dict[str, list[float]]
    """Mean gate weight, by modality."""
    clips: list[int]
    """Number of measured clips."""
    area: float
    """Area under the accuracy, from 0 to 1."""
    area_low: float
    """Lower end of its 95 % interval."""
    area_high: float
    """Upper end of the interval."""
    single_area: float
    """Area under `single`."""
    correlation: float | None
    """Spearman's correlation of the corrupted modality's gate weight with the severity, over clips and levels.

    None if the
    weight is constant.
    """
    absent: int
    """Number of clips without the modality."""
    left_out: int
    """Number of other clips that cannot be measured at some level."""
    chance: list[float]
    """Accuracy of always predicting the most frequent class."""

    @property
    def clean(self) -> float:
        """Accuracy without corruption."""
        return self.accuracy[self.levels.index(AXES[self.axis].clean)]

    @property
    def kept(self) -> float:
        """Area divided by the clean accuracy: 1 if nothing is lost."""
        return self.area / self.clean if self.clean else float("nan")

    @property
    def worst(self) -> tuple[float, float]:
        """Lowest accuracy and its level."""
        place = int(np.nanargmin(self.accuracy))
        return self.accuracy[place], self.levels[place]

    @property
    def title(self) -> str:
        """Modality and kind of corruption."""
        name = "all modalities" if self.modality == ALL else self.modality
        return f"{name}: {AXES[self.axis].title}"


@dataclass(frozen=True)
class Subset:
    """Results with only some of a clip's modalities."""

    present: tuple[str, ...]
    """Modalities that are present."""
    accuracy: float
    low: float
    """Lower end of the 95 % interval of the accuracy."""
    high: float
    """Upper end of the interval."""
    auc: float | None
    weights: dict[str, float]
    """Mean gate weight by modality."""
    clips: int
    """Number of measured clips."""
    chance: float
    """Accuracy of always predicting the most frequent class of these clips."""


@dataclass(frozen=True)
class Robustness:
    """All subsets and curves of one sweep."""

    missing: list[Subset]
    curves: list[Curve]
    unmeasured: list[tuple[str, str]]
    """Axis and modality of curves that no clip can be measured for."""


def area_under(values: Sequence[float] | NDArray[np.floating], places: Sequence[float] | None = None) -> float:
    """Returns the trapezoid area under values (n,), divided by the range of `places`.

    This is the mean height of the curve. Without `places` the values are evenly spaced. NaN values are dropped. The
    result is NaN if fewer than two are left.

    >>> area_under([1.0, 0.5, 0.0])
    0.5
    """
    heights = np.asarray(values, float)
    x = np.arange(len(heights)) if places is None else np.asarray(places, float)
    known = np.isfinite(heights)
    if known.sum() < 2:
        return float("nan")
    return float(np.trapezoid(heights[known], x[known]) / np.ptp(x[known]))


def measure_robustness(sweep: Sweep, units: Sequence[str], draws: int = DRAWS) -> Robustness:
    """Computes every subset and curve of a sweep. Intervals come from a bootstrap over `units`.

    - `units` (n,): group of each clip, or the clip itself.
    """
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
    """Returns axis and modality of every curve that some clip can be measured for, by modality, then all together."""
    measured = zip(sweep.conditions, sweep.valid, strict=True)
    keys = {(c.axis, c.modality) for c, valid in measured if c.axis != MISSING and not c.alone and valid.any()}
    modalities, axes = [*sweep.modalities, ALL], list(AXES)
    return sorted(keys, key=lambda key: (modalities.index(key[1]), axes.index(key[0])))


def right_answers(sweep: Sweep, axis: str, modality: str) -> NDArray[np.float64]:
    """Returns whether each clip is correct at each level (L, n). NaN where the clip cannot be measured."""
    found = {condition: number for number, condition in enumerate(sweep.conditions)}
    rows = [found[Condition(axis, modality, level)] for level in AXES[axis].levels]
    return np.stack([_right(sweep, row) for row in rows])


def level_means(right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean of each row's known values (L, n). NaN for a row without any."""
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
    """Returns the interval of the area under rows (L, n), or of the mean of one row. NaN without measured clips."""
    if not np.isfinite(right).any():
        return float("nan"), float("nan")

    def statistic(rows: NDArray[np.int64]) -> float:
        means = level_means(right[:, rows])
        return area_under(means) if area else float(means[0])

    return bootstrap_interval(statistic, units, draws=draws)


def _best_single(sweep: Sweep, places: Mapping[Condition, int], axis: str, modality: str, level: float) -> float:
    """Returns the best accuracy of a single modality on the clips of this condition, with the same corruption."""
    valid = sweep.valid[places[Condition(axis, modality, level)]]
    found = []
    for name in sweep.modalities:
        if modality in (name, ALL):
            condition = Condition(axis, name, level, alone=True)
        elif axis == "desync":
            # Use the same views, which have room for the shift.
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
    scores, truth = sweep.probabilities[place, valid, 1], sweep.labels[valid] == 1
    folds = Folds.of(np.array(sweep.folds)[valid] if sweep.folds else [], len(truth))
    return float(folds.mean(lambda rows: roc_auc(scores[rows], truth[rows])))


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
