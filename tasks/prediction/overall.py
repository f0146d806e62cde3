"""What a recording's pieces say of it as a whole."""

from typing import Any

import numpy as np

from .window_scores import Prediction, Scorer, calibrate


class Overall:
    """Takes the predictions of one recording in their order; memory does not grow with time."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.pieces, self.end, self.whole = 0, 0.0, False
        self.scores, self.gates = np.zeros(len(scorer.classes)), np.zeros(len(scorer.modalities))
        self.highest = np.zeros(len(scorer.classes))

    def add(self, prediction: Prediction) -> None:
        """The next one."""
        scores = np.array(list(prediction.probabilities.values()))
        self.pieces += 1
        self.end, self.whole = prediction.end, prediction.whole
        self.scores += scores
        self.gates += list(prediction.gates.values())
        self.highest = np.maximum(self.highest, scores)

    def means(self) -> dict[str, float]:
        """The mean score of each class over the pieces: of a whole clip, the score that evaluation gives it."""
        return dict(zip(self.scorer.classes, (self.scores / max(self.pieces, 1)).tolist(), strict=True))

    def peaks(self) -> dict[str, float]:
        """The highest score of each class over the pieces."""
        return dict(zip(self.scorer.classes, self.highest.tolist(), strict=True))

    def decision(self) -> str | None:
        """The class of a recording that is one piece: a mean over many hides what happens in a few of them."""
        return decide(self.scorer, self.means()) if self.pieces == 1 else None

    def facts(self) -> dict[str, Any]:
        """The recording as one clip, as plain values; `whole`: by all of it at once, else by the mean of pieces."""
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
    """The class of a clip.

    Where one class is the positive one, that one from the model's threshold on, by default a half. Of classes of
    which several may hold, all that reach it, as a label names them: `fight|shouting`, or `|` for none. Else the
    most probable.
    """
    threshold = 0.5 if scorer.application.threshold is None else scorer.application.threshold
    if scorer.multilabel:
        return "|".join(name for name, value in probabilities.items() if value >= threshold) or "|"
    positive = scorer.positive
    if positive is not None and probabilities[positive] >= threshold:
        return positive
    others = {name: value for name, value in probabilities.items() if name != positive}
    return max(others or probabilities, key=(others or probabilities).__getitem__)
