"""From the scores of test clips to the task's metrics, their intervals and the report's figures."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from .metrics import action_metrics, bootstrap_interval, violence_metrics
from .multilabel import multilabel_metrics
from .results import Confusion, Curves, Gates
from .scoring import Scores


def judge(
    scores: Scores, positive: int | None, units: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Metrics, and 95 % intervals of the headline ones by bootstrap over `units` (a clip's group, or itself).

    `positive`: the class that means violence, or none for actions. Labels (n, C) are of several classes.
    """
    several = scores.labels.ndim == 2

    def measure(rows: Any) -> dict[str, float]:
        if several:
            return multilabel_metrics(scores.probabilities[rows], scores.labels[rows])
        if positive is None:
            return action_metrics(scores.probabilities[rows], scores.labels[rows])
        return violence_metrics(scores.probabilities[rows, positive], (scores.labels[rows] == positive).astype(int))

    def one(name: str) -> Callable[[NDArray[np.int64]], float]:
        return lambda rows: measure(rows)[name]

    metrics = measure(slice(None))
    headline = list(metrics) if several else ["accuracy"] if positive is None else ["accuracy", "auc"]
    return metrics, {name: bootstrap_interval(one(name), units, draws=500) for name in headline}


def draw_figures(
    scores: Scores, classes: Sequence[str], positive: int | None, modalities: Sequence[str]
) -> list[Confusion | Curves | Gates]:
    """Confusion (of clips of one class each), for violence the ROC curve, and mean gate weights by class; classes without a clip are left out."""
    if scores.labels.ndim == 2:
        seen = [number for number in range(len(classes)) if scores.labels[:, number].any()]
        means = [scores.weights[scores.labels[:, number] == 1].mean(axis=0).tolist() for number in seen]
        return [Gates("Mean gate weight by class", list(modalities), [classes[n] for n in seen], means)]
    matrix = np.zeros((len(classes), len(classes)), int)
    np.add.at(matrix, (scores.labels, scores.probabilities.argmax(axis=1)), 1)
    figures: list[Confusion | Curves | Gates] = [Confusion("Confusion (rows: truth)", list(classes), matrix.tolist())]
    seen = [number for number in range(len(classes)) if (scores.labels == number).any()]
    if positive is not None and len(seen) == 2:
        false, true, _ = roc_curve(scores.labels == positive, scores.probabilities[:, positive])
        points = list(zip(false.tolist(), true.tolist(), strict=True))
        figures.append(Curves("ROC", "false alarms", "recall", {"fused": points}, diagonal=True))
    means = [scores.weights[scores.labels == number].mean(axis=0).tolist() for number in seen]
    figures.append(Gates("Mean gate weight by class", list(modalities), [classes[n] for n in seen], means))
    return figures
