"""The output of `predict` for one recording: JSON lines, a timeline, a film, and the figures at its end."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ...shards.live.live_source import Gap
from ...tasks.prediction.alarm_events import Alarm, AlarmRule, AlarmWatch
from ...tasks.prediction.overall import Overall
from ...tasks.prediction.timeline import TimelineBins
from ...tasks.prediction.window_scores import Prediction, Scorer
from ...tasks.records import Timeline

if TYPE_CHECKING:
    from ...tasks.prediction.video_overlay import OverlayVideo

MOST_ALARMS = 1000


@dataclass
class Predicted:
    """Figures of one recording.

    `windows`: number of pieces. `whole`: the recording is one clip. `means` and `peaks` of each class over the pieces
    (of one piece, its scores). `decision`: the class, of one piece. `dropped` pieces and `gaps` of a live source.
    `damaged`: skipped packets of a file. `alarms`: the last thousand of `alarm_count` that ended.
    """

    title: str
    timeline: Timeline
    windows: int = 0
    seconds: float = 0.0
    whole: bool = False
    means: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    decision: str | None = None
    dropped: int = 0
    gaps: int = 0
    damaged: int = 0
    alarm_count: int = 0
    alarms: list[Alarm] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """All but the timeline, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "timeline"}


class PredictionLines:
    """Writes predictions and gaps in order.

    One JSON line each to `lines`: `kind` is `window` (a piece), `gap`, `alarm`, or at the end of a recording `clip`.
    `file` names the recording if there are several. Memory does not grow with time.
    """

    def __init__(
        self,
        scorer: Scorer,
        title: str,
        lines: TextIO,
        alarm: tuple[str, AlarmRule] | None = None,
        file: str | None = None,
        film: "OverlayVideo | None" = None,
    ) -> None:
        self.title, self.lines, self.file, self.film = title, lines, file, film
        self.alarm_class = alarm[0] if alarm is not None else ""
        self.watch = AlarmWatch(alarm[1]) if alarm is not None else None
        self.bins = TimelineBins(scorer.classes, scorer.modalities)
        self.overall = Overall(scorer)
        self.predicted = Predicted(title, self.bins.timeline(title))
        self.raised: Alarm | None = None
        self.clock: datetime | None = None

    def add(self, event: Prediction | Gap) -> None:
        """Writes one prediction or gap."""
        predicted = self.predicted
        if isinstance(event, Gap):
            predicted.dropped += event.dropped
            predicted.gaps += 1
            self._write("gap", asdict(event))
            self._alarms(self.watch.interrupt() if self.watch is not None else [])
            return
        if event.time is not None:
            self.clock = datetime.fromisoformat(event.time) - timedelta(seconds=event.start)
        self._write("window", event.facts())
        self.overall.add(event)
        scores = list(event.probabilities.values())
        predicted.windows += 1
        predicted.seconds = event.end
        self.bins.add((event.start + event.end) / 2, scores, list(event.gates.values()))
        if self.watch is not None:
            score = event.probabilities[self.alarm_class]
            self._alarms(self.watch.update(event.start, event.end, score))
        if self.film is not None:
            self.film.add(event, self.alarm_class if self.raised is not None else None)

    def finish(self, whole: bool = True) -> Predicted:
        """Ends the current alarm and the film; `whole`: the recording was read to its end."""
        self._alarms(self.watch.interrupt() if self.watch is not None else [])
        if self.film is not None:
            self.film.close(whole)
        predicted = self.predicted
        predicted.timeline = self.bins.timeline(self.title)
        if predicted.windows:
            overall = self.overall
            predicted.whole, predicted.means, predicted.peaks = overall.whole, overall.means(), overall.peaks()
            predicted.decision = overall.decision()
            # A live source is not a clip.
            if whole and self.clock is None:
                self._write("clip", overall.facts())
        return predicted

    def draw(self, target: Path) -> None:
        """Draws the timeline as a PNG, with the spans of the alarms."""
        from ...tasks.report.charts import draw_timeline

        spans = [(alarm.on, alarm.off) for alarm in self.predicted.alarms if alarm.off is not None]
        draw_timeline(self.predicted.timeline, target, spans, self.bins.peaks())

    def _alarms(self, told: list[Alarm]) -> None:
        for alarm in told:
            facts: dict[str, Any] = {"class": self.alarm_class, "state": "on" if alarm.off is None else "off"}
            facts |= {key: value if value is None else round(value, 4) for key, value in asdict(alarm).items()}
            if self.clock is not None:
                at = alarm.on if alarm.off is None else alarm.off
                facts["time"] = (self.clock + timedelta(seconds=at)).isoformat(timespec="milliseconds")
            self._write("alarm", facts)
            if alarm.off is None:
                self.raised = alarm
                continue
            self.raised = None
            self.predicted.alarm_count += 1
            self.predicted.alarms.append(alarm)
            del self.predicted.alarms[:-MOST_ALARMS]

    def _write(self, kind: str, facts: dict[str, Any]) -> None:
        named = {} if self.file is None else {"file": self.file}
        self.lines.write(json.dumps({"kind": kind} | named | facts) + "\n")
        self.lines.flush()
