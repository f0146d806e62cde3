"""Clips to look at: those a classifier is surest of, and those it is most wrong about."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..shards.contact import draw_clip
from ..shards.index import Index
from .results import Example, Examples
from .scoring import Scores


def choose_examples(scores: Scores, each: int = 4) -> tuple[list[int], list[int]]:
    """Row numbers of right answers, the surest of every class by turns, and of the most wrong: those whose own class
    got the least."""
    guesses = scores.probabilities.argmax(axis=1)
    own = scores.probabilities[np.arange(len(guesses)), scores.labels]
    right = guesses == scores.labels
    queues = [
        [row for row in np.argsort(-own, kind="stable").tolist() if right[row] and scores.labels[row] == number]
        for number in np.unique(scores.labels)
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
    clips = []
    for verdict, rows in zip(("right", "wrong"), choose_examples(scores, each), strict=True):
        for row in rows:
            key, guess = scores.keys[row], int(scores.probabilities[row].argmax())
            # A key may hold what no file name may.
            picture = pictures / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.png"
            draw_clip(index, samples[key], picture)
            clips.append(
                Example(
                    key,
                    verdict,
                    classes[int(scores.labels[row])],
                    classes[guess],
                    float(scores.probabilities[row, guess]),
                    dict(zip(modalities, scores.weights[row].tolist(), strict=True)),
                    f"examples/{picture.name}",
                )
            )
    return Examples("Examples: the surest right answers and the worst wrong ones", clips)
