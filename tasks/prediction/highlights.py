"""The windows of a recording with the highest scores."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...shards.errors import choice_error
from .window_scores import Prediction


@dataclass(frozen=True)
class Highlight:
    """A window and its score."""

    start: float
    """Start in seconds."""
    end: float
    """End in seconds."""
    time: float
    """Centre in seconds."""
    class_name: str
    score: float
    """Score of `class_name`."""


def highlights(windows: Sequence[Prediction], count: int, class_name: str | None = None) -> list[Highlight]:
    """Returns at most `count` windows, highest score first, none of which overlaps a higher one.

    The earliest wins a tie.

    Windows are ranked by the score of `class_name`, or by their best class. Raises `RequestError` for an unknown
    class.
    """
    if not windows:
        return []
    known = windows[0].probabilities
    if class_name is not None and class_name not in known:
        raise choice_error("class of this model", class_name, known)
    chosen: list[Highlight] = []
    for window in sorted((_highlight(window, class_name) for window in windows), key=lambda one: -one.score):
        if len(chosen) == count:
            break
        if all(window.end <= other.start or window.start >= other.end for other in chosen):
            chosen.append(window)
    return chosen


def _highlight(window: Prediction, class_name: str | None) -> Highlight:
    scores = window.probabilities
    name = class_name if class_name is not None else max(scores, key=scores.__getitem__)
    time = round((window.start + window.end) / 2, 3)
    return Highlight(window.start, window.end, time, name, scores[name])
