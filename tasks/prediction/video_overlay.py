"""A video with scores, gate weights and alarms drawn on it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ...shards.media.rewrite import FrameRewriter
from ..report.style import ALARM_COLOUR, MODALITY_COLOURS, PALETTE, colours_of
from .window_scores import Prediction

MOST_ROWS = 5
_INK, _GREY, _TRACK = (245, 245, 245), (150, 150, 150), (88, 92, 99)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class OverlayVideo:
    """Writes `target` from `source` during prediction. Each frame shows the window nearest in time."""

    def __init__(self, source: Path, target: Path) -> None:
        self.film = FrameRewriter(source, target)
        self.latest: tuple[Prediction, str | None] | None = None

    def add(self, prediction: Prediction, alarm: str | None) -> None:
        """Adds the next window, and the class of a current alarm or None."""
        if self.latest is not None:
            before = self.latest[0]
            between = (before.start + before.end + prediction.start + prediction.end) / 4
            self.film.advance(between, self._paint)
        self.latest = (prediction, alarm)

    def close(self, whole: bool = True) -> None:
        """Writes the remaining frames. Without `whole`, stops at the end of the last window."""
        if whole or self.latest is None:
            self.film.close(self._paint)
        else:
            self.film.advance(self.latest[0].end, self._paint)
            self.film.abandon()

    def _paint(self, picture: NDArray[np.uint8]) -> None:
        if self.latest is not None:
            paint(picture, *self.latest)


def paint(picture: NDArray[np.uint8], prediction: Prediction, alarm: str | None) -> None:
    """Draws class scores and gate weights as bars at the bottom of an RGB picture (H, W, 3).

    An alarm adds a red border with the class. Sizes scale with the shorter side of the picture. At most `MOST_ROWS`
    bars are drawn for each.
    """
    height, width = picture.shape[:2]
    unit = max(min(height, width) / 240, 0.5)
    scores = prediction.probabilities
    if len(scores) > MOST_ROWS:
        scores = dict(sorted(scores.items(), key=lambda item: -item[1])[:MOST_ROWS])
    gates = dict(list(prediction.gates.items())[:MOST_ROWS])
    line, margin = round(13 * unit), round(6 * unit)
    top = max(height - max(len(scores), len(gates)) * line - margin, 0)
    picture[top:] = picture[top:] // 4
    names = list(prediction.probabilities)
    colours = dict(zip(names, colours_of(names, list(prediction.gates)), strict=True))
    classes = [(name, value, colours[name], True) for name, value in scores.items()]
    weights = [
        (name, value, MODALITY_COLOURS.get(name, PALETTE[-1]), name in prediction.present)
        for name, value in gates.items()
    ]
    half = width // 2
    for left, rows in ((margin, classes), (half + margin, weights)):
        _bars(picture, rows, (left, top + margin // 2, half - 2 * margin, line), unit)
    if alarm is not None:
        thick, red = max(round(3 * unit), 1), _rgb(ALARM_COLOUR)
        cv2.rectangle(picture, (0, 0), (width - 1, height - 1), red, 2 * thick)
        text = f"ALARM {_plain(alarm)}"
        (wide, high), _ = cv2.getTextSize(text, _FONT, 0.45 * unit, thick // 2 + 1)
        cv2.rectangle(picture, (0, 0), (wide + 4 * margin, high + 3 * margin), red, -1)
        place = (2 * margin, high + 2 * margin)
        cv2.putText(picture, text, place, _FONT, 0.45 * unit, _INK, thick // 2 + 1, cv2.LINE_AA)


def _bars(
    picture: NDArray[np.uint8],
    rows: Sequence[tuple[str, float, str, bool]],
    box: tuple[int, int, int, int],
    unit: float,
) -> None:
    """Draws rows of name, bar and number. `box` is left, top, width and height of a row in pixels."""
    left, top, width, line = box
    size, thick = 0.34 * unit, max(round(unit), 1)
    longest = max(round(width * 0.4), 1)
    number = cv2.getTextSize("0.00", _FONT, size, thick)[0][0]
    begin, end = left + longest, left + width - number - round(4 * unit)
    for place, (name, value, colour, there) in enumerate(rows):
        base = top + place * line + round(9 * unit)
        ink = _INK if there else _GREY
        text = _plain(name)
        while len(text) > 1 and cv2.getTextSize(text, _FONT, size, thick)[0][0] > longest - round(4 * unit):
            text = text[:-1]
        cv2.putText(picture, text, (left, base), _FONT, size, ink, thick, cv2.LINE_AA)
        high, low = base - round(7 * unit), base
        cv2.rectangle(picture, (begin, high), (end, low), _TRACK, -1)
        reach = begin + round((end - begin) * min(max(value, 0.0), 1.0))
        if there and reach > begin:
            cv2.rectangle(picture, (begin, high), (reach, low), _rgb(colour), -1)
        shown = f"{value:.2f}" if there else "-"
        cv2.putText(picture, shown, (end + round(4 * unit), base), _FONT, size, ink, thick, cv2.LINE_AA)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return red, green, blue


def _plain(text: str) -> str:
    """Replaces characters outside ASCII, which the font lacks."""
    return text.encode("ascii", "replace").decode()
