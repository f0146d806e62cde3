"""The scores of every test clip as a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shards.index.whole_file import whole_file
from ..class_names import class_identifiers
from .scores import Scores


def write_score_table(
    path: Path,
    scores: Scores,
    splits: Sequence[str],
    groups: Sequence[str],
    classes: Sequence[str],
    positive: int | None,
    modalities: Sequence[str],
) -> None:
    """Writes one row per clip to `path`, atomically.

    - `key`, `split`, `group`: clip key, split and group, from `scores.keys`, `splits` (n,) and `groups` (n,).
    - `label`, `predicted`: true and predicted class.
    - `probability_CLASS`: one column per class.
    - `weight_MODALITY`: one column per gate weight.

    Predicted is the most probable class. With a `positive` class of two, that class is predicted from a probability
    of 0.5.

    With several classes per clip, `label` and `predicted` join the class names with `|`. Predicted are the classes
    from a probability of 0.5. A single `|` means no class.
    """
    header = ["key", "split", "group", "label", "predicted"]
    header += [f"probability_{name}" for name in class_identifiers(classes)]
    header += [f"weight_{name}" for name in modalities]
    labels, predicted = _named(scores.labels, classes), _named(_predicted(scores, positive), classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, key in enumerate(scores.keys):
            # Nine significant digits reproduce a float32 exactly.
            numbers = [f"{value:.9g}" for value in (*scores.probabilities[number], *scores.weights[number])]
            writer.writerow([key, splits[number], groups[number], labels[number], predicted[number], *numbers])


def _predicted(scores: Scores, positive: int | None) -> NDArray[np.int64]:
    if scores.labels.ndim == 2:
        return (scores.probabilities >= 0.5).astype(np.int64)
    if positive is None:
        return scores.probabilities.argmax(axis=1)
    return np.where(scores.probabilities[:, positive] >= 0.5, positive, 1 - positive)


def _named(numbers: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    if numbers.ndim == 1:
        return [str(classes[number]) for number in numbers.tolist()]
    return ["|".join(name for name, holds in zip(classes, row, strict=True) if holds) or "|" for row in numbers]
