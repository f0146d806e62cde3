"""Thresholds and temperature chosen on held-out clips, and the metrics they give on test clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..class_names import class_identifiers
from ..metrics.calibration import apply_temperature, expected_calibration_error, fit_temperature
from ..metrics.classification import bootstrap_interval, violence_metrics
from ..metrics.fold_means import Folds
from ..metrics.multilabel import class_thresholds, multilabel_metrics
from ..metrics.thresholds import best_f1_threshold, false_alarms_per_hour
from ..records import Cell
from .scores import Scores

# Titles of the fine-tuning tables that contain these rows.
ON_VALIDATION, OUT_OF_FOLD = "Chosen on validation clips", "Calibration of the final model"

TEMPERATURE, THRESHOLD = "temperature", "threshold of best F1"


@dataclass(frozen=True)
class Calibration:
    """Values fitted on the scores of clips that the classifier was not trained on."""

    temperature: float | None
    """Temperature for probabilities of exclusive classes. None with several classes per clip."""
    thresholds: dict[str, float]
    """Threshold by class, for probabilities before the temperature.

    With a positive class, only that class has one. With several classes per clip, each class has one. Empty for
    action classes.
    """


def calibrate(scores: Scores, classes: Sequence[str], positive: int | None) -> Calibration:
    """Fits the temperature with the lowest cross-entropy and the thresholds with the best F1 on `scores`.

    - `positive`: the class that gets a threshold, or None for action classes. Without positive clips there is no
      threshold.
    """
    if scores.labels.ndim == 2:
        chosen = class_thresholds(scores.probabilities, scores.labels)
        return Calibration(None, dict(zip(classes, chosen.tolist(), strict=True)))
    temperature = fit_temperature(scores.probabilities, scores.labels)
    if positive is None or not (scores.labels == positive).any():
        return Calibration(temperature, {})
    threshold = best_f1_threshold(scores.probabilities[:, positive], scores.labels == positive)
    return Calibration(temperature, {classes[positive]: threshold})


def chosen_rows(
    parts: Sequence[tuple[Scores, Scores]],
    classes: Sequence[str],
    positive: int | None,
    seconds: NDArray[Any],
    units: Sequence[str],
) -> list[list[Cell]]:
    """Returns rows of (name, value, low, high) over the test clips of all splits. Only some have a 95 % interval.

    Each split chooses its own temperature and thresholds on its held-out clips. The rows are:

    - calibration error before and after the temperature;
    - with a `positive` class, accuracy, F1 and recalls at its threshold, and the false alarms per hour of calm video
      at a recall of 0.9. The threshold for that recall comes from the test clips of each split: scores of two models
      are not comparable. The rate is the mean over splits, with an interval.
    - with several classes per clip, only F1 at the class thresholds, and these thresholds.

    Arguments:

    - `parts`: (test scores, held-out scores), one pair per split.
    - `seconds` (n,): durations of the test clips, in order.
    - `units` (n,): group of each test clip, or the clip itself, for the interval.
    """
    found = [calibrate(held, classes, positive) for _, held in parts]
    labels = np.concatenate([test.labels for test, _ in parts])
    if labels.ndim == 2:
        return _multilabel_rows([test for test, _ in parts], found, labels, classes)
    plain = np.concatenate([test.probabilities for test, _ in parts])
    temperatures = [chosen.temperature or 1.0 for chosen in found]
    scaled = [apply_temperature(test.probabilities, t) for (test, _), t in zip(parts, temperatures, strict=True)]
    rows: list[list[Cell]] = [
        [TEMPERATURE, float(np.mean(temperatures)), None, None],
        ["calibration error", expected_calibration_error(plain, labels), None, None],
        ["calibration error, tempered", expected_calibration_error(np.concatenate(scaled), labels), None, None],
    ]
    if positive is None or not all(chosen.thresholds for chosen in found):
        return rows
    thresholds = [chosen.thresholds[classes[positive]] for chosen in found]
    # Subtracting each split's threshold makes the scores of all splits comparable.
    margins = [test.probabilities[:, positive] - t for (test, _), t in zip(parts, thresholds, strict=True)]
    truth = (labels == positive).astype(int)
    names = class_identifiers(classes)
    judged = violence_metrics(np.concatenate(margins), truth, (names[1 - positive], names[positive]), 0.0)
    rows.append([THRESHOLD, float(np.mean(thresholds)), None, None])
    kept = [name for name in judged if name in ("accuracy", "f1") or name.startswith("recall_")]
    rows += [[f"{name} at it", judged[name], None, None] for name in kept]
    if 0 < truth.sum() < len(truth):
        rows.append(_alarm_row(parts, plain[:, positive], truth, seconds, units))
    return rows


def _alarm_row(
    parts: Sequence[tuple[Scores, Scores]],
    chances: NDArray[Any],
    truth: NDArray[Any],
    seconds: NDArray[Any],
    units: Sequence[str],
) -> list[Cell]:
    """Returns the row of false alarms: a mean over the splits, or over the folds of a single part."""
    sizes = [len(test.keys) for test, _ in parts]
    folds = (
        parts[0][0].divided if len(parts) == 1 else Folds(np.repeat(np.arange(len(sizes)), sizes), np.array(sizes))
    )

    def rate(rows: NDArray[np.int64] | None = None) -> float:
        def of_fold(part: NDArray[np.int64]) -> float:
            if not 0 < truth[part].sum() < len(part):
                return float("nan")
            return false_alarms_per_hour(chances[part], truth[part], seconds[part])

        return float(folds.mean(of_fold, rows))

    name = "false alarms per hour at recall 0.9"
    if len(folds.sizes) > 1:
        name += f", mean over {len(folds.sizes)} folds"
    return [name, rate(), *bootstrap_interval(rate, units, draws=500)]


def _multilabel_rows(
    tests: Sequence[Scores], found: Sequence[Calibration], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[list[Cell]]:
    thresholds = [np.array([chosen.thresholds[name] for name in classes]) for chosen in found]
    margins = [test.probabilities - chosen for test, chosen in zip(tests, thresholds, strict=True)]
    judged = multilabel_metrics(np.concatenate(margins), labels, 0.0)
    rows: list[list[Cell]] = [[f"{name} at them", judged[name], None, None] for name in ("micro_f1", "macro_f1")]
    means = np.mean(thresholds, axis=0).tolist()
    return rows + [[f"threshold of {name}", mean, None, None] for name, mean in zip(classes, means, strict=True)]
