"""How a model is applied to a recording, so that it is deployed as it was evaluated; reading it needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clip_spec import ClipSpec
from .windows import uniform_starts

# A recording that is longer than the longest clip by no more than this factor is still scored as one clip.
MARGIN = 1.5


@dataclass(frozen=True)
class Application:
    """How a model is applied to a recording.

    A recording of at most `whole` seconds is one clip, as in evaluation: `views` windows, spread evenly over all of
    it. A longer one, or a live source, is cut in pieces of `piece` seconds, one every `hop` seconds, and each of them
    is one clip. The result of a clip is the mean over its views of what `averaging` names.

    `piece` and `longest`: the median and the greatest duration of the clips of the evaluation, in seconds; `longest`
    is 0 where it is not known. `threshold`: the score from which a clip is of the positive class. `temperature`:
    divides the logarithms of the probabilities of classes that exclude each other, so that they mean what they say.
    Both are none where nothing chose them.
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
        """Seconds between pieces: `hop` where given; `ValueError` where it does not move."""
        step = self.hop if hop is None else hop
        if not step > 0:
            raise ValueError(f"a hop of {step:g} s does not move: give seconds above 0")
        return step

    def starts(self, spec: ClipSpec, duration: float) -> NDArray[np.float64]:
        """Where the views of a clip of `duration` seconds start; equal ones are one, which has the same mean."""
        covered = spec.covered(duration)
        # Durations of pieces are differences, and not exact.
        alike = duration < covered + 1e-9
        return np.zeros(1) if alike else uniform_starts(duration, covered, self.views)


def clip_application(views: int, durations: Sequence[float], clip_seconds: float) -> Application:
    """The application of a model that is evaluated with `views` on clips of these durations.

    `clip_seconds`: where packing cuts recordings in pieces; a longer one never was one clip.
    """
    longest = float(max(durations))
    piece = float(np.median(durations))
    return Application(views, piece, longest, min(MARGIN * longest, clip_seconds), piece / 2)


def default_application(spec: ClipSpec, views: int) -> Application:
    """The application of a model whose clips are not known, as of older bundles: one window is a piece.

    Of a stretched model all but long recordings are whole clips, and a piece is as long as makes it play at the
    natural speed.
    """
    piece = spec.seconds / (spec.stretch or 1)
    whole = spec.pack_settings().clip_seconds if spec.stretch else 0.0
    return Application(views, piece, 0.0, whole, piece / 2)


def plain_application(content: dict[str, Any] | None, spec: ClipSpec, views: int) -> Application:
    """An `Application` from its plain form, as JSON holds it; the default where there is none."""
    return default_application(spec, views) if content is None else Application(**content)
