"""`predict` as a Python function. Names and arguments are those of the command line."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...fusion.own_classes import allowing
from ...shards.errors import DataError, choice_error
from ...shards.media.pack_settings import PackSettings
from ..jobs.first_checks import check_scorer, plain_rates

if TYPE_CHECKING:
    from ...tasks.prediction.alarm_events import Alarm
    from ...tasks.prediction.window_scores import Prediction

Place = str | Path


@dataclass(frozen=True)
class PredictedRecording(Sequence["Prediction"]):
    """Scores of one recording. Works as the sequence of its windows.

    windows: predictions of the pieces, in order.
    whole: whether the recording was scored as one clip, as evaluation scores it.
    scores: mean probability of each class over the pieces. Of a whole clip: the score of the evaluation.
    peaks: highest probability of each class.
    decision: the class of a recording with one piece; None for several pieces, or without pieces.
    alarm: class of the alarms; None without one.
    alarms: spans in seconds with their peak score, at most the last thousand.
    damaged: number of packets that could not be decoded and were skipped.
    """

    windows: "list[Prediction]"
    whole: bool
    scores: dict[str, float]
    peaks: dict[str, float]
    decision: str | None
    alarm: str | None
    alarms: "list[Alarm]"
    damaged: int

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> "Iterator[Prediction]":
        return iter(self.windows)

    def __getitem__(self, place: "int | slice") -> "Prediction | list[Prediction]":  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.windows[place]


def predict(
    model: Place,
    recording: Place,
    *,
    beside: Mapping[str, Place] | None = None,
    rate: Mapping[str, float] | None = None,
    hop: float | None = None,
    alarm: str | None = None,
    on: float | None = None,
    off: float | None = None,
    smooth: float = 2.0,
    smoothing: Literal["mean", "exponential"] = "mean",
    min_on: float = 0.0,
    min_off: float = 0.0,
    max_seconds: float = PackSettings.max_seconds,
    batch_size: int = 4,
    allow: Sequence[str] = (),
) -> PredictedRecording:
    """Class scores, gate weights and alarms of a recording.

    model: a bundle or run folder of a classifier, `hf://OWNER/NAME`, or an exported .onnx file.
    recording: a media file, or a folder of frames. One as short as the training clips is a single piece.
    beside: files of further modalities by name, such as `{"depth": "depth.mkv"}`; `--with` of the command line.
    rate: Hz of frame folders, arrays and signals, such as `{"video": 30}`.
    hop: seconds between pieces; default: as in evaluation.
    alarm: class of the alarms; default: the positive class.
    on: score that starts an alarm; default: as validation chose, or 0.5.
    off: score below which an alarm ends; default: 0.8 of `on`.
    smooth: seconds over which the score of alarms is averaged.
    smoothing: `mean`, or `exponential` with `smooth` as time constant.
    min_on: seconds of a high score before an alarm starts.
    min_off: seconds of a low score before an alarm ends.
    max_seconds: longer recordings raise `DataError`.
    batch_size: pieces per forward pass.
    allow: packages whose classes the bundle may import.

    Raises `RequestError` for a missing file, for a model that is not a classifier and for an unknown class,
    `DataError` for a recording that cannot be read.
    """
    from ...shards.index.unreadable import UNREADABLE, reason_of
    from ...shards.media.damaged_packets import Damage
    from ...tasks.prediction.window_scores import predict as score
    from ..predict.predicting import load_scorer, recording_files
    from ..predict.prediction_lines import PredictionLines
    from ..predict.prediction_request import AlarmRequest

    if smoothing not in ("mean", "exponential"):
        raise choice_error("smoothing", smoothing, ("mean", "exponential"))
    check_scorer(Path(model))
    with allowing(allow):
        scorer = load_scorer(Path(model))
    rule = AlarmRequest(alarm, on, off, smooth, smoothing, min_on, min_off).rule(scorer, scorer.application.threshold)
    files = recording_files(
        scorer.modalities, Path(recording), {name: Path(path) for name, path in (beside or {}).items()}
    )
    # The lines are not kept: only the figures at the end.
    told = PredictionLines(scorer, Path(recording).name, io.StringIO(), rule)
    windows: list[Prediction] = []
    damage = Damage()
    try:
        for piece in score(scorer, files, hop, batch_size, plain_rates(rate), damage, max_seconds):
            windows.append(piece)
            told.add(piece)
    except UNREADABLE as error:
        raise DataError(f"'{recording}' cannot be read: {reason_of(error)}") from error
    found = told.finish()
    return PredictedRecording(
        windows,
        found.whole,
        found.means,
        found.peaks,
        found.decision,
        None if rule is None else rule[0],
        found.alarms,
        damage.packets,
    )
