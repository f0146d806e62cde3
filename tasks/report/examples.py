"""Clips to look at: those a classifier is surest of, and those it is most wrong about."""

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
    """Row numbers of right answers, the surest of every class by turns, and of the most wrong: those whose own class
    got the least. Of several classes an answer is right where all are, and as sure as its least sure part."""
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
    """Right and most wrong clips of `index`, a picture of each in FOLDER/examples."""
    samples = {sample.key: sample for sample in index.samples}
    pictures = folder / "examples"
    pictures.mkdir(parents=True, exist_ok=True)
    clips, guesses = [], _guesses(scores)
    for verdict, rows in zip(("right", "wrong"), choose_examples(scores, each), strict=True):
        for row in rows:
            key, sure = scores.keys[row], np.maximum(scores.probabilities[row], 1 - scores.probabilities[row])
            # A key may hold what no file name may.
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
    return Examples("Examples: the surest right answers and the worst wrong ones", clips)


def _guesses(scores: Scores) -> NDArray[np.int64]:
    """Class numbers (n,), of several classes 0 and 1 (n, C)."""
    if scores.labels.ndim == 2:
        return (scores.probabilities >= 0.5).astype(np.int64)
    return scores.probabilities.argmax(axis=1)


def _named(label: NDArray[np.int64], classes: Sequence[str]) -> str:
    if label.ndim == 0:
        return classes[int(label)]
    return " + ".join(name for name, has in zip(classes, label, strict=True) if has) or "none"
