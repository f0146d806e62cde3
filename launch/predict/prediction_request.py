"""The options of `predict`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...shards.errors import RequestError, choice_error
from ...shards.live.live_source import Patience
from ...tasks.prediction.alarm_events import AlarmRule, Smoothing
from ...tasks.prediction.window_scores import Scorer


@dataclass(frozen=True)
class AlarmRequest:
    """Options of alarms: the class (default: the positive one); the threshold `on` (default: chosen on validation
    clips, or 0.5) and `off` (default: 0.8 of `on`); in seconds, smoothing and shortest alarm and pause.
    """

    name: str | None = None
    on: float | None = None
    off: float | None = None
    smooth: float = 2.0
    smoothing: Smoothing = "mean"
    min_on: float = 0.0
    min_off: float = 0.0

    def rule(self, scorer: Scorer, threshold: float | None) -> tuple[str, AlarmRule] | None:
        """The class and its rule; None without a class. Raises `RequestError` for an unknown class."""
        name = self.name or scorer.positive
        if name is None:
            if self.on is not None or self.off is not None:
                raise RequestError("--on and --off need a class: name it with --alarm")
            return None
        if name not in scorer.classes:
            raise choice_error("class of this model", name, scorer.classes)
        on = self.on if self.on is not None else 0.5 if threshold is None else threshold
        off = self.off if self.off is not None else 0.8 * on
        return name, AlarmRule(on, off, self.smooth, self.smoothing, self.min_on, self.min_off)


@dataclass(frozen=True)
class PredictRequest:
    """The options of `predict`. `beside`: files of further modalities by name. `rates`: Hz of files that do not
    store it. `out`, `png`, `video`: where lines, timeline and film go (for several recordings: folders). `overwrite`:
    whether `out` may replace a file.
    """

    beside: dict[str, Path] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    hop: float | None = None
    out: Path | None = None
    png: Path | None = None
    video: Path | None = None
    alarm: AlarmRequest = field(default_factory=AlarmRequest)
    patience: Patience = field(default_factory=Patience)
    overwrite: bool = False

    def check_free(self, keys: Sequence[str] | None = None) -> list[Path]:
        """The pictures and films that are replaced. `keys`: of several recordings.

        They are drawn from the lines. Raises `RequestError` if the lines of `out` exist and may not be replaced.
        """
        # An empty file holds no result, and a device or a pipe keeps none.
        if self.out is not None and not self.overwrite and _holds(self.out):
            raise RequestError(f"'{self.out}' already exists: give another --out, or add --overwrite")
        wanted: list[Path] = []
        for place, suffix in ((self.png, "png"), (self.video, "mp4")):
            if place is not None:
                wanted += [place] if keys is None else [place / f"{key}.{suffix}" for key in keys]
        return [] if self.overwrite else [path for path in wanted if _holds(path)]


def _holds(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
