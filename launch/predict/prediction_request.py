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
    """Options of alarms."""

    name: str | None = None
    """Class to detect. Default: the positive class."""
    on: float | None = None
    """Score that starts an alarm. Default: chosen on validation clips, or 0.5."""
    off: float | None = None
    """Score below which it ends. Default: 0.8 of `on`."""
    smooth: float = 2.0
    """Seconds of smoothing."""
    smoothing: Smoothing = "mean"
    """Kind of smoothing."""
    min_on: float = 0.0
    """Shortest alarm in seconds."""
    min_off: float = 0.0
    """Shortest pause in seconds."""

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
    """Options of `predict`."""

    beside: dict[str, Path] = field(default_factory=dict)
    """Files of further modalities, by name."""
    rates: dict[str, float] = field(default_factory=dict)
    """Rate in Hz of files that do not store it, by name."""
    hop: float | None = None
    """Seconds between pieces. None: as the model is applied."""
    out: Path | None = None
    """File of the lines; for several recordings, a folder."""
    png: Path | None = None
    """Picture of the timeline; for several recordings, a folder."""
    video: Path | None = None
    """Film with scores; for several recordings, a folder."""
    alarm: AlarmRequest = field(default_factory=AlarmRequest)
    """Options of alarms."""
    patience: Patience = field(default_factory=Patience)
    """Waiting times of live sources."""
    overwrite: bool = False
    """Whether `out` and `video` may replace files."""
    max_seconds: float = PackSettings.max_seconds
    """Longest recording in seconds. Streams have no limit."""

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
