"""From the scores of test clips to the task's metrics, their intervals and the report's figures."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from .metrics import action_metrics, bootstrap_interval, roc_auc, top_k_accuracy, violence_metrics
from .results import Confusion, Curves, Gates
from .scoring import Scores

# More lines cannot be told apart.
MOST_CLASSES = 8


def judge(
    scores: Scores, positive: int | None, units: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Metrics, and 95 % intervals of the headline ones by bootstrap over `units` (a clip's group, or itself).

    `positive`: the class that means violence, or none for actions.
    """

    # An interval asks for its own figure alone, a thousand times.
    headline: dict[str, Callable[[NDArray[np.int64]], float]]
    if positive is None:
        metrics = action_metrics(scores.probabilities, scores.labels)
        headline = {"accuracy": lambda rows: top_k_accuracy(scores.probabilities[rows], scores.labels[rows])}
    else:
        said, truth = scores.probabilities[:, positive], (scores.labels == positive).astype(int)
        metrics = violence_metrics(said, truth)
        headline = {
            "accuracy": lambda rows: float(((said[rows] >= 0.5) == truth[rows]).mean()),
            "auc": lambda rows: roc_auc(said[rows], truth[rows]),
        }
    return metrics, {name: bootstrap_interval(of, units, draws=500) for name, of in headline.items()}


def join_scores(parts: Sequence[Scores]) -> Scores:
    """The clips of several folds as one."""
    return Scores(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [key for part in parts for key in part.keys],
    )


def draw_figures(
    scores: Scores, classes: Sequence[str], positive: int | None, modalities: Sequence[str]
) -> list[Confusion | Curves | Gates]:
    """Confusion, ROC and precision-recall, and mean gate weights by class; classes without a clip are left out.

    The curves are of the class that means violence, or else of each class against all others where they are few.
    """
    matrix = np.zeros((len(classes), len(classes)), int)
    np.add.at(matrix, (scores.labels, scores.probabilities.argmax(axis=1)), 1)
    figures: list[Confusion | Curves | Gates] = [Confusion("Confusion (rows: truth)", list(classes), matrix.tolist())]
    seen = [number for number in range(len(classes)) if (scores.labels == number).any()]
    means = [scores.weights[scores.labels == number].mean(axis=0).tolist() for number in seen]
    figures.append(Gates("Mean gate weight by class", list(modalities), [classes[n] for n in seen], means))
    if positive is not None and len(seen) == 2:
        figures += _curves(scores, {"fused": positive})
    elif 1 < len(seen) <= MOST_CLASSES:
        figures += _curves(scores, {classes[number]: number for number in seen})
    return figures


def _curves(scores: Scores, classes: Mapping[str, int]) -> list[Curves]:
    """ROC and precision-recall of classes, each against the others, by the name of their line."""
    roc, precision = {}, {}
    for name, number in classes.items():
        true, chances = scores.labels == number, scores.probabilities[:, number]
        false_alarms, found, _ = roc_curve(true, chances)
        roc[name] = list(zip(false_alarms.tolist(), found.tolist(), strict=True))
        exact, recall, _ = precision_recall_curve(true, chances)
        precision[name] = list(zip(recall.tolist(), exact.tolist(), strict=True))[::-1]
    return [
        Curves("ROC", "false alarms", "recall", roc, diagonal=True),
        Curves("Precision and recall", "recall", "precision", precision),
    ]
