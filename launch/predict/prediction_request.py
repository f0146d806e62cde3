"""The options of `predict`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...shards.errors import RequestError, choice_error
from ...shards.index.whole_file import PICTURE, keep_others, keep_results
from ...shards.live.live_source import Patience
from ...shards.media.pack_settings import PackSettings
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
    whether `out` and `video` may replace files. `max_seconds`: longest recording; streams have no end.
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
    max_seconds: float = PackSettings.max_seconds

    def check_free(self, keys: Sequence[str] | None = None) -> list[Path]:
        """The pictures that are replaced. `keys`: of several recordings.

        Raises `RequestError` if lines or a film exist and may not be replaced, or if a picture would replace anything
        but a picture.
        """
        if self.out is not None:
            keep_results(self.out, "--out", self.overwrite)
        for path in _places(self.video, "mp4", keys):
            keep_results(path, "--video", self.overwrite)
        pictures = _places(self.png, "png", keys)
        for path in pictures:
            keep_others(path, "--png", PICTURE)
        return [] if self.overwrite else [path for path in pictures if path.is_file() and path.stat().st_size]


def _places(place: Path | None, suffix: str, keys: Sequence[str] | None) -> list[Path]:
    """The file at `place`, or one for each of several recordings in it."""
    if place is None:
        return []
    return [place] if keys is None else [place / f"{key}.{suffix}" for key in keys]
