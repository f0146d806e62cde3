"""Metrics, intervals and report figures from the scores of test clips."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from ..class_names import class_identifiers
from ..metrics.chance import action_chances, multilabel_chances, violence_chances
from ..metrics.classification import (
    action_metrics,
    average_precision,
    average_precisions,
    bootstrap_interval,
    mean_class_accuracy,
    roc_auc,
    violence_metrics,
)
from ..metrics.multilabel import multilabel_metrics
from ..records import Confusion, Curves, Gates
from .scores import Scores

Statistic = Callable[[NDArray[np.int64]], float]

# Most curves in one figure: more lines are hard to distinguish.
MOST_CLASSES = 8


def judge(
    scores: Scores, classes: Sequence[str], positive: int | None, units: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Returns the metrics, and the 95 % intervals of the main ones.

    Intervals come from a bootstrap over `units`. AUC and average precision are means over the folds of `scores`.

    - `positive`: the one of two `classes` to detect, or None for action classes. With a positive class, the metrics
      include the recall of both classes by name.
    - `units` (n,): group of each clip, or the clip itself.

    Labels (n, C) mean several classes per clip.
    """
    metrics = _metrics(scores, classes, positive)
    folds = scores.divided
    if scores.labels.ndim == 2:
        headline: dict[str, Statistic] = {name: _several(scores, name) for name in metrics}
    elif positive is None:
        right = scores.probabilities.argmax(axis=1) == scores.labels
        headline = {
            "accuracy": lambda rows: float(right[rows].mean()),
            "mean_class_accuracy": lambda rows: mean_class_accuracy(scores.probabilities[rows], scores.labels[rows]),
        }
    else:
        chances, truth = scores.probabilities[:, positive], scores.labels == positive
        right = (chances >= 0.5) == truth
        headline = {
            "accuracy": lambda rows: float(right[rows].mean()),
            "auc": lambda rows: float(folds.mean(lambda part: roc_auc(chances[part], truth[part]), rows)),
            "average_precision": lambda rows: float(
                folds.mean(lambda part: average_precision(chances[part], truth[part]), rows)
            ),
        }
    return metrics, {name: bootstrap_interval(figure, units, draws=500) for name, figure in headline.items()}


def chances_of(scores: Scores, positive: int | None) -> dict[str, float]:
    """Returns the chance level of each metric of `judge` that has one."""
    folds, labels = scores.divided, scores.labels
    if labels.ndim == 2:
        # A class counts in the folds where it occurs, as in its average precision.
        shares = folds.mean(lambda part: _share(labels[part]))
        return multilabel_chances(labels) | {"mean_average_precision": _mean(shares)}
    if positive is None:
        return action_chances(labels, scores.probabilities.shape[1])
    truth = labels == positive
    share = float(folds.mean(lambda part: _share(truth[part])))
    return violence_chances(truth) | {"average_precision": share}


def class_precisions(scores: Scores, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Returns the average precision of each class (C,), a mean over the folds where the class occurs.

    - `rows`: clips that count, which may repeat. Default: all.
    """
    return scores.divided.mean(lambda part: average_precisions(scores.probabilities[part], scores.labels[part]), rows)


def split_line(name: str, scores: Scores, classes: Sequence[str], positive: int | None) -> str:
    """Returns one line with the metrics of a finished split and their chance levels. Omits undefined metrics."""
    metrics, chances = _metrics(scores, classes, positive), chances_of(scores, positive)
    titles = {"mean_average_precision": "mean average precision", "accuracy": "accuracy", "auc": "AUC"}
    parts = [
        f"{title} {metrics[key]:.3f} (chance {chances[key]:.3f})"
        for key, title in titles.items()
        if np.isfinite(metrics.get(key, np.nan))
    ]
    return ", ".join([f"{name}: {len(scores.keys)} clips", *parts])


def _metrics(scores: Scores, classes: Sequence[str], positive: int | None) -> dict[str, float]:
    if scores.labels.ndim == 2:
        precision = {"mean_average_precision": _mean(class_precisions(scores))}
        return multilabel_metrics(scores.probabilities, scores.labels) | precision
    if positive is None:
        return action_metrics(scores.probabilities, scores.labels)
    names = class_identifiers(classes)
    chances, truth = scores.probabilities[:, positive], scores.labels == positive
    found = violence_metrics(chances, truth, (names[1 - positive], names[positive]))
    folds = scores.divided
    auc = folds.mean(lambda part: roc_auc(chances[part], truth[part]))
    precision = folds.mean(lambda part: average_precision(chances[part], truth[part]))
    return found | {"auc": float(auc), "average_precision": float(precision)}


def _several(scores: Scores, name: str) -> Statistic:
    if name == "mean_average_precision":
        return lambda rows: _mean(class_precisions(scores, rows))
    return lambda rows: multilabel_metrics(scores.probabilities[rows], scores.labels[rows])[name]


def _share(truth: NDArray[np.bool_] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the share of clips with the class, by column. NaN for a class that does not occur."""
    share = np.asarray(truth, float).mean(axis=0)
    return np.where(share > 0, share, np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def draw_figures(
    scores: Scores, classes: Sequence[str], positive: int | None, modalities: Sequence[str]
) -> list[Confusion | Curves | Gates]:
    """Returns a confusion matrix, ROC and precision-recall curves, and the mean gate weights by class.

    Classes without clips are omitted. Curves show the positive class. Without one, they show each class against all
    others, for up to `MOST_CLASSES` classes. With several classes per clip there is no confusion matrix.
    """
    if scores.labels.ndim == 2:
        return _several_figures(scores, classes, modalities)
    matrix = np.zeros((len(classes), len(classes)), int)
    np.add.at(matrix, (scores.labels, scores.probabilities.argmax(axis=1)), 1)
    figures: list[Confusion | Curves | Gates] = [Confusion("Confusion (rows: truth)", list(classes), matrix.tolist())]
    seen = [number for number in range(len(classes)) if (scores.labels == number).any()]
    means = [scores.weights[scores.labels == number].mean(axis=0).tolist() for number in seen]
    figures.append(Gates("Mean gate weight by class", list(modalities), [classes[n] for n in seen], means))
    if positive is not None and len(seen) == 2:
        figures += _curves(scores, {classes[positive]: positive})
    elif 1 < len(seen) <= MOST_CLASSES:
        figures += _curves(scores, {classes[number]: number for number in seen})
    return figures


def _several_figures(
    scores: Scores, classes: Sequence[str], modalities: Sequence[str]
) -> list[Confusion | Curves | Gates]:
    seen = [number for number in range(len(classes)) if scores.labels[:, number].any()]
    means = [scores.weights[scores.labels[:, number] == 1].mean(axis=0).tolist() for number in seen]
    figures: list[Confusion | Curves | Gates] = [
        Gates("Mean gate weight by class", list(modalities), [classes[number] for number in seen], means)
    ]
    drawn = [number for number in seen if not scores.labels[:, number].all()]
    return figures + (_curves(scores, {classes[n]: n for n in drawn}) if 0 < len(drawn) <= MOST_CLASSES else [])


def _curves(scores: Scores, classes: Mapping[str, int]) -> list[Curves]:
    """Returns ROC and precision-recall curves of classes (line name to class number), each against all others."""
    roc, precision = {}, {}
    for name, number in classes.items():
        true = scores.labels[:, number] == 1 if scores.labels.ndim == 2 else scores.labels == number
        chances = scores.probabilities[:, number]
        false_alarms, found, _ = roc_curve(true, chances)
        roc[name] = list(zip(false_alarms.tolist(), found.tolist(), strict=True))
        exact, recall, _ = precision_recall_curve(true, chances)
        precision[name] = list(zip(recall.tolist(), exact.tolist(), strict=True))[::-1]
    # The area of a pooled curve is not the mean AUC over folds.
    pooled = ", folds pooled" if len(scores.divided.sizes) > 1 else ""
    return [
        Curves(f"ROC{pooled}", "false alarms", "recall", roc, diagonal=True),
        Curves(f"Precision and recall{pooled}", "recall", "precision", precision),
    ]
