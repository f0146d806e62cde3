"""What validation clips choose for a classifier, threshold and temperature, and what that gives on test clips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alarms import best_f1_threshold, false_alarms_per_hour
from .calibration import apply_temperature, expected_calibration_error, fit_temperature
from .metrics import violence_metrics
from .multilabel import class_thresholds, multilabel_metrics
from .results import Cell
from .scoring import Scores


def chosen_rows(
    parts: Sequence[tuple[Scores, Scores]], positive: int | None, seconds: NDArray[Any]
) -> list[list[Cell]]:
    """Rows of (figure, value) over the test clips of all `parts`: (test, validation) scores, one per split.

    Every split chooses for itself. Calibration error before and after its temperature; for violence also F1 and the
    recalls at its threshold of best F1, and the false alarms per hour of calm video at a recall of 0.9, at the
    threshold the test clips themselves give. `seconds` (n,): durations of the test clips in order.
    """
    labels = np.concatenate([test.labels for test, _ in parts])
    plain = np.concatenate([test.probabilities for test, _ in parts])
    temperatures = [fit_temperature(held.probabilities, held.labels) for _, held in parts]
    scaled = [apply_temperature(test.probabilities, t) for (test, _), t in zip(parts, temperatures, strict=True)]
    rows: list[list[Cell]] = [
        ["temperature", float(np.mean(temperatures))],
        ["calibration error", expected_calibration_error(plain, labels)],
        ["calibration error, tempered", expected_calibration_error(np.concatenate(scaled), labels)],
    ]
    if positive is None:
        return rows
    thresholds = [best_f1_threshold(held.probabilities[:, positive], held.labels == positive) for _, held in parts]
    # A split's scores less its threshold can be judged with those of the others.
    margins = [test.probabilities[:, positive] - t for (test, _), t in zip(parts, thresholds, strict=True)]
    violent = (labels == positive).astype(int)
    judged = violence_metrics(np.concatenate(margins), violent, 0.0)
    rows.append(["threshold of best F1", float(np.mean(thresholds))])
    rows += [[f"{name} at it", judged[name]] for name in ("accuracy", "f1", "recall_violent", "recall_other")]
    if 0 < violent.sum() < len(violent):
        rows.append(
            ["false alarms per hour at recall 0.9", false_alarms_per_hour(plain[:, positive], violent, seconds)]
        )
    return rows


def chosen_multilabel_rows(parts: Sequence[tuple[Scores, Scores]], classes: Sequence[str]) -> list[list[Cell]]:
    """The same where clips have several classes: F1 at the thresholds of each class, and these."""
    thresholds = [class_thresholds(held.probabilities, held.labels) for _, held in parts]
    margins = [test.probabilities - chosen for (test, _), chosen in zip(parts, thresholds, strict=True)]
    judged = multilabel_metrics(np.concatenate(margins), np.concatenate([test.labels for test, _ in parts]), 0.0)
    rows: list[list[Cell]] = [[f"{name} at them", judged[name]] for name in ("micro_f1", "macro_f1")]
    means = np.mean(thresholds, axis=0).tolist()
    return rows + [[f"threshold of {name}", mean] for name, mean in zip(classes, means, strict=True)]
