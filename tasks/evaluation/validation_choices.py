"""What held-out clips choose for a classifier, thresholds and temperature, and what that gives on test clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..class_names import class_identifiers
from ..metrics.calibration import apply_temperature, expected_calibration_error, fit_temperature
from ..metrics.classification import violence_metrics
from ..metrics.multilabel import class_thresholds, multilabel_metrics
from ..metrics.thresholds import best_f1_threshold, false_alarms_per_hour
from ..records import Cell
from .scores import Scores

# Titles of the tables of a fine-tuning that hold these rows.
ON_VALIDATION, OUT_OF_FOLD = "Chosen on validation clips", "Calibration of the final model"

TEMPERATURE, THRESHOLD = "temperature", "threshold of best F1"


@dataclass(frozen=True)
class Calibration:
    """What is fitted on the scores of clips that the classifier did not train on.

    `temperature`: for the probabilities of classes that exclude each other, none for several classes of a clip.
    `thresholds`: by class, on the probabilities as they are, before the temperature: of the positive class alone, or
    of every class that a clip may have; empty where no class has one.
    """

    temperature: float | None
    thresholds: dict[str, float]


def calibrate(scores: Scores, classes: Sequence[str], positive: int | None) -> Calibration:
    """The temperature of least cross-entropy and the thresholds of best F1, for these `scores`.

    `positive`: the class that has a threshold, none for actions. A positive class without a clip has none either.
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
    parts: Sequence[tuple[Scores, Scores]], classes: Sequence[str], positive: int | None, seconds: NDArray[Any]
) -> list[list[Cell]]:
    """Rows of (figure, value) over the test clips of all `parts`: (test, held-out) scores, one per split.

    Every split chooses for itself. Calibration error before and after its temperature; with a `positive` class also
    F1 and the recalls at its threshold of best F1, and the false alarms per hour of calm video at a recall of 0.9, at
    the threshold the test clips themselves give. `seconds` (n,): durations of the test clips in order. Of several
    classes: F1 at the thresholds of each class, and these.
    """
    found = [calibrate(held, classes, positive) for _, held in parts]
    labels = np.concatenate([test.labels for test, _ in parts])
    if labels.ndim == 2:
        return _multilabel_rows([test for test, _ in parts], found, labels, classes)
    plain = np.concatenate([test.probabilities for test, _ in parts])
    temperatures = [chosen.temperature or 1.0 for chosen in found]
    scaled = [apply_temperature(test.probabilities, t) for (test, _), t in zip(parts, temperatures, strict=True)]
    rows: list[list[Cell]] = [
        [TEMPERATURE, float(np.mean(temperatures))],
        ["calibration error", expected_calibration_error(plain, labels)],
        ["calibration error, tempered", expected_calibration_error(np.concatenate(scaled), labels)],
    ]
    if positive is None or not all(chosen.thresholds for chosen in found):
        return rows
    thresholds = [chosen.thresholds[classes[positive]] for chosen in found]
    # A split's scores less its threshold can be judged with those of the others.
    margins = [test.probabilities[:, positive] - t for (test, _), t in zip(parts, thresholds, strict=True)]
    truth = (labels == positive).astype(int)
    names = class_identifiers(classes)
    judged = violence_metrics(np.concatenate(margins), truth, (names[1 - positive], names[positive]), 0.0)
    rows.append([THRESHOLD, float(np.mean(thresholds))])
    kept = [name for name in judged if name in ("accuracy", "f1") or name.startswith("recall_")]
    rows += [[f"{name} at it", judged[name]] for name in kept]
    if 0 < truth.sum() < len(truth):
        rows.append(
            ["false alarms per hour at recall 0.9", false_alarms_per_hour(plain[:, positive], truth, seconds)]
        )
    return rows


def _multilabel_rows(
    tests: Sequence[Scores], found: Sequence[Calibration], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[list[Cell]]:
    thresholds = [np.array([chosen.thresholds[name] for name in classes]) for chosen in found]
    margins = [test.probabilities - chosen for test, chosen in zip(tests, thresholds, strict=True)]
    judged = multilabel_metrics(np.concatenate(margins), labels, 0.0)
    rows: list[list[Cell]] = [[f"{name} at them", judged[name]] for name in ("micro_f1", "macro_f1")]
    means = np.mean(thresholds, axis=0).tolist()
    return rows + [[f"threshold of {name}", mean] for name, mean in zip(classes, means, strict=True)]
