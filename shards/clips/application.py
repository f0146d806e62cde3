"""`Application`: how a model is applied to a recording, as it was evaluated. Plain data that needs no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clip_spec import ClipSpec
from .windows import uniform_starts

# A recording up to this factor longer than the longest clip is still scored as one clip.
MARGIN = 1.5
# Limits on a file from an unknown sender: views of a clip, seconds of a piece, and seconds between pieces.
MOST_VIEWS, MOST_SECONDS, LEAST_HOP = 1000, 6 * 3600, 1e-3


@dataclass(frozen=True)
class Application:
    """How a model is applied to a recording.

    A recording of at most `whole` seconds is one clip, as in evaluation. A longer recording, or a live source, is cut
    into pieces of `piece` seconds, one every `hop` seconds, and each piece is one clip. The result of a clip is the
    mean over its views.

    - `views`: windows per clip, spread evenly over it.
    - `piece`: seconds of a piece: the median duration of the evaluation clips.
    - `longest`: seconds of the longest evaluation clip. 0: unknown.
    - `whole`: seconds up to which a recording is one clip.
    - `hop`: seconds between the starts of pieces.
    - `averaging`: what is averaged over views.
    - `threshold`: score from which a clip is of the positive class. None: not chosen.
    - `temperature`: divisor of the log probabilities of mutually exclusive classes, for calibration. None: not
      chosen.
    """

    views: int = 1
    piece: float = 0.0
    longest: float = 0.0
    whole: float = 0.0
    hop: float = 0.0
    averaging: str = "probabilities"
    threshold: float | None = None
    temperature: float | None = None

    def step(self, hop: float | None = None) -> float:
        """Returns the seconds between pieces: `hop` if given. Raises `ValueError` if it is not above 0."""
        step = self.hop if hop is None else hop
        if not step > 0:
            raise ValueError(f"a hop of {step:g} s does not move: give seconds above 0")
        return step

    def starts(self, spec: ClipSpec, duration: float) -> NDArray[np.float64]:
        """Returns the start times of a clip's views. Views that would coincide are one, with the same mean."""
        covered = spec.covered(duration)
        # Durations of pieces are differences of floats, and inexact.
        alike = duration < covered + 1e-9
        return np.zeros(1) if alike else uniform_starts(duration, covered, self.views)


def clip_application(views: int, durations: Sequence[float], clip_seconds: float) -> Application:
    """Returns the application of a model that is evaluated with `views` on clips of these durations.

    `clip_seconds`: the length at which packing cuts recordings. A longer recording was never one clip.
    """
    longest = float(max(durations))
    piece = float(np.median(durations))
    return Application(views, piece, longest, min(MARGIN * longest, clip_seconds), piece / 2)


def default_application(spec: ClipSpec, views: int) -> Application:
    """Returns the application of a model whose evaluation clips are unknown, as in older bundles.

    A piece is one window. For a stretched model, all but long recordings are whole clips, and a piece has the length
    that plays at natural speed.
    """
    piece = spec.seconds / (spec.stretch or 1)
    whole = spec.pack_settings().clip_seconds if spec.stretch else 0.0
    return Application(views, piece, 0.0, whole, piece / 2)


def plain_application(content: dict[str, Any] | None, spec: ClipSpec, views: int) -> Application:
    """Returns an `Application` from its JSON form, or the default one without `content`.

    Raises `ValueError` for values that no model has: the sender of the file may be unknown.
    """
    if content is None:
        return default_application(spec, views)
    found = Application(**content)
    if type(found.views) is not int or not 0 < found.views <= MOST_VIEWS:
        raise ValueError(f"views are {found.views!r}, not a number from 1 to {MOST_VIEWS}")
    for name in ("piece", "longest", "whole", "hop"):
        value = getattr(found, name)
        # An application that is not known yet has zeros.
        least = LEAST_HOP if name in ("piece", "hop") and found.piece else 0
        if not least <= value <= MOST_SECONDS:
            raise ValueError(f"{name} is {value!r}, not seconds from {least:g} to {MOST_SECONDS}")
    if not (found.threshold is None or 0 <= found.threshold <= 1):
        raise ValueError(f"the threshold is {found.threshold!r}, not a probability")
    if not (found.temperature is None or 0 < found.temperature < math.inf):
        raise ValueError(f"the temperature is {found.temperature!r}, not above 0")
    return found
