"""Example clips: the most confident correct predictions, and the worst errors."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shards.clips.contact_sheet import draw_clip
from ...shards.index.table import Index
from ..evaluation.scores import Scores
from ..records import Example, Examples


def choose_examples(scores: Scores, each: int = 4) -> tuple[list[int], list[int]]:
    """Returns row numbers of correct predictions, and of the worst errors.

    Correct predictions are the most confident of each class, class by class. The worst errors gave the lowest
    probability to the true class. With several classes per clip, a prediction is correct if all decisions are, and
    its confidence is the lowest among them.

    - `each`: number of clips of each kind.
    """
    guesses = _guesses(scores)
    rows = np.arange(len(scores.labels))
    if scores.labels.ndim == 2:
        own = np.where(scores.labels == 1, scores.probabilities, 1 - scores.probabilities).min(axis=1)
        right = (guesses == scores.labels).all(axis=1)
    else:
        own, right = scores.probabilities[rows, scores.labels], guesses == scores.labels
    _, kinds = np.unique(scores.labels, axis=0, return_inverse=True)
    kinds = kinds.reshape(-1)
    queues = [
        [row for row in np.argsort(-own, kind="stable").tolist() if right[row] and kinds[row] == kind]
        for kind in range(kinds.max(initial=-1) + 1)
    ]
    longest = max((len(queue) for queue in queues), default=0)
    by_turns = [queue[place] for place in range(longest) for queue in queues if place < len(queue)]
    wrong = [row for row in np.argsort(own, kind="stable").tolist() if not right[row]]
    return by_turns[:each], wrong[:each]


def draw_examples(
    scores: Scores, index: Index, classes: Sequence[str], modalities: Sequence[str], folder: Path, each: int = 4
) -> Examples:
    """Returns correct and worst clips of `index`, and writes a picture of each to FOLDER/examples."""
    samples = {sample.key: sample for sample in index.samples}
    pictures = folder / "examples"
    pictures.mkdir(parents=True, exist_ok=True)
    clips, guesses = [], _guesses(scores)
    for verdict, rows in zip(("right", "wrong"), choose_examples(scores, each), strict=True):
        for row in rows:
            key, sure = scores.keys[row], np.maximum(scores.probabilities[row], 1 - scores.probabilities[row])
            # Keys may contain characters that file names cannot.
            picture = pictures / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.png"
            draw_clip(index, samples[key], picture)
            clips.append(
                Example(
                    key,
                    verdict,
                    _named(scores.labels[row], classes),
                    _named(guesses[row], classes),
                    float(sure.min() if scores.labels.ndim == 2 else scores.probabilities[row].max()),
                    dict(zip(modalities, scores.weights[row].tolist(), strict=True)),
                    f"examples/{picture.name}",
                )
            )
    return Examples("Examples: most confident correct predictions and worst errors", clips)


def _guesses(scores: Scores) -> NDArray[np.int64]:
    """Returns predicted class numbers (n,), or 0 and 1 (n, C) with several classes per clip."""
    if scores.labels.ndim == 2:
        return (scores.probabilities >= 0.5).astype(np.int64)
    return scores.probabilities.argmax(axis=1)


def _named(label: NDArray[np.int64], classes: Sequence[str]) -> str:
    if label.ndim == 0:
        return classes[int(label)]
    return " + ".join(name for name, has in zip(classes, label, strict=True) if has) or "none"
