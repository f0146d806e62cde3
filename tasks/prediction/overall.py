"""Scores of a recording as a whole."""

from typing import Any

import numpy as np

from .window_scores import Prediction, Scorer, calibrate


class Overall:
    """Accumulates the predictions of one recording, in order. Memory does not grow with time."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.pieces, self.end, self.whole = 0, 0.0, False
        self.scores, self.gates = np.zeros(len(scorer.classes)), np.zeros(len(scorer.modalities))
        self.highest = np.zeros(len(scorer.classes))

    def add(self, prediction: Prediction) -> None:
        """Adds the next prediction."""
        scores = np.array(list(prediction.probabilities.values()))
        self.pieces += 1
        self.end, self.whole = prediction.end, prediction.whole
        self.scores += scores
        self.gates += list(prediction.gates.values())
        self.highest = np.maximum(self.highest, scores)

    def means(self) -> dict[str, float]:
        """Returns the mean score of each class over the pieces.

        For a whole clip it is the score that evaluation gives.
        """
        return dict(zip(self.scorer.classes, (self.scores / max(self.pieces, 1)).tolist(), strict=True))

    def peaks(self) -> dict[str, float]:
        """Returns the highest score of each class over the pieces."""
        return dict(zip(self.scorer.classes, self.highest.tolist(), strict=True))

    def decision(self) -> str | None:
        """Returns the class of a recording with one piece, else None: a mean over many pieces hides short events."""
        return decide(self.scorer, self.means()) if self.pieces == 1 else None

    def facts(self) -> dict[str, Any]:
        """Returns the scores of the recording as plain values.

        `whole`: whether it was scored as one clip, not by the mean of pieces.
        """
        means, gates = self.means(), self.gates / max(self.pieces, 1)
        calibrated = calibrate(self.scorer, np.array(list(means.values())))
        found = {
            "start": 0.0,
            "end": self.end,
            "whole": self.whole,
            "pieces": self.pieces,
            "class": self.decision(),
            "probabilities": means,
            "calibrated": calibrated,
            "peaks": self.peaks(),
            "gates": dict(zip(self.scorer.modalities, gates.tolist(), strict=True)),
        }
        return {name: value for name, value in found.items() if value is not None}


def decide(scorer: Scorer, probabilities: dict[str, float]) -> str:
    """Returns the class of a clip.

    - With a positive class: that class, from the model's threshold on (default 0.5).
    - With several classes per clip: all classes from the threshold on, joined as in `fight|shouting`. `|` for none.
    - Otherwise: the most probable class.
    """
    threshold = 0.5 if scorer.application.threshold is None else scorer.application.threshold
    if scorer.multilabel:
        return "|".join(name for name, value in probabilities.items() if value >= threshold) or "|"
    positive = scorer.positive
    if positive is not None and probabilities[positive] >= threshold:
        return positive
    others = {name: value for name, value in probabilities.items() if name != positive}
    return max(others or probabilities, key=(others or probabilities).__getitem__)
