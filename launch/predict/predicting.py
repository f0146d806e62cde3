"""`predict`: scores of a recording, a folder of recordings, packed clips or a live source."""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ...shards.clip_spec import check_packing
from ...shards.clips.application import Application
from ...shards.errors import DataError, RequestError, choice_error
from ...shards.index.table import INDEX_NAME
from ...shards.index.unreadable import UNREADABLE, reason_of
from ...shards.live.address import Address, find_address
from ...shards.live.inputs import find_material
from ...shards.live.live_source import Gap, LiveSource
from ...shards.media.container_io import probe
from ...shards.media.credentials import masked
from ...shards.media.damaged_packets import Damage
from ...shards.modality import sources_of
from ...shards.packing.sources import Source, find_sources
from ...tasks.prediction.alarm_events import AlarmRule
from ...tasks.prediction.window_scores import Prediction, Scorer, predict, predict_live, predict_pieces, scorer_of
from ..runs.progress import Advance, track
from .prediction_lines import Predicted, PredictionLines
from .prediction_request import PredictRequest

if TYPE_CHECKING:
    from ...fusion.bundle.bundle import Bundle
    from ...tasks.prediction.video_overlay import OverlayVideo

# Between lines on standard error.
SECONDS_BETWEEN_NOTICES = 5.0


def predict_source(model: Path, source: str, request: PredictRequest) -> Iterator[Predicted]:
    """Scores `source`: a media file, a folder of frames or recordings, shards, a webcam's number or a stream's URL.

    JSON lines go to `request.out` or standard output as they are computed. Each recording's figures are yielded at
    its end, also after a fault or an interruption. An unreadable recording of a folder is reported on standard error,
    and the next ones are scored. Raises `RequestError` for a missing or unsuitable source, for output
    that is unwritable or exists, and at the end `DataError` for an unreadable recording.
    """
    path = Path(source)
    packed = path.is_dir() and (path / INDEX_NAME).is_file()
    address = None if packed else find_address(source)
    if address is None and not path.exists():
        raise RequestError(f"no file at '{source}'")
    # Before the model is loaded, which takes longer.
    sources = find_sources(path) if address is None and path.is_dir() and not packed else []
    if [source.path for source in sources] == [path]:  # a folder of frames is one recording
        sources = []
    keys = [source.key for source in sources] or None
    replaced = request.check_free([item.key for item in find_material(source).items] if packed else keys)
    scorer = load_scorer(model)
    alarm = request.alarm.rule(scorer, scorer.application.threshold)
    if address is not None or sources or packed:
        what = "a stream" if address is not None else "packed clips" if packed else "a folder"
        if request.beside:
            raise RequestError(f"--with adds a file to one recording: it does not work with {what}")
        if request.video is not None and not sources:
            hint = (
                "but a stream is read once: record it first"
                if address is not None
                else "and packed clips are not films"
            )
            raise RequestError(f"--video reads a film twice, {hint}")
    with _lines_to(request.out) as lines:
        if address is not None:
            yield from _predict_address(scorer, address, request, lines, alarm)
        elif packed:
            yield from _predict_shards(scorer, source, request, lines, alarm)
        elif sources:
            yield from _predict_folder(scorer, path, sources, request, lines, alarm)
        else:
            files = recording_files(scorer.modalities, path, request.beside)
            yield from _predict_files(scorer, Source("", files), request, lines, alarm)
    if replaced:
        more = f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
        _say(f"note: this replaced '{replaced[0]}'{more}")


def load_scorer(model: Path) -> Scorer:
    """The classifier at `model`: an ONNX file, a bundle or a run folder."""
    if model.suffix.lower() == ".onnx":
        from .onnx_scorer import OnnxScorer

        if not model.is_file():
            raise RequestError(f"no file at '{model}'")
        graph = OnnxScorer(model)
        graph.application = with_threshold(graph.application, graph.metrics)
        return graph
    return scorer_of(deployed_bundle(model))


def with_threshold(application: Application, metrics: dict[str, float]) -> Application:
    """`application` with the threshold that validation clips chose, if the model carries none."""
    from ..runs.recorded import alarm_threshold

    if application.threshold is not None:
        return application
    return replace(application, threshold=alarm_threshold(metrics))


def deployed_bundle(model: Path) -> "Bundle":
    """The bundle at `model`, or of the run there, with its chosen threshold."""
    from ...fusion.bundle.bundle import load_bundle
    from ..runs.bundles import find_bundle
    from ..runs.recorded import recorded_metrics

    folder = find_bundle(model)
    bundle, run = load_bundle(folder), folder.parent
    if bundle.spec.stretch and not bundle.application.longest:
        _say(
            f"warning: '{model}' does not record the clip length of its evaluation: recordings longer than "
            f"{bundle.application.whole:g} s are scored in pieces of {bundle.application.piece:.3g} s; train it again"
        )
    metrics = bundle.metrics or (recorded_metrics(run) if (run / "config.yaml").is_file() else {})
    bundle.application = with_threshold(bundle.application, metrics)
    return bundle


def recording_files(modalities: tuple[str, ...], video: Path, beside: dict[str, Path]) -> dict[str, Path]:
    """The recording's files by modality. Raises `RequestError` for a missing file or unknown modality."""
    known = sources_of(modalities)
    for name in beside:
        if name not in known:
            raise choice_error("modality of this model", name, known)
    files = {"video": video} | beside
    for path in files.values():
        if not path.exists():
            raise RequestError(f"no file at '{path}'")
    return files


def parse_beside(given: list[str]) -> dict[str, Path]:
    """`depth=depth.mkv` as {"depth": Path("depth.mkv")}."""
    files = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not separator:
            raise RequestError(f"--with '{text}': give MODALITY=FILE, such as depth=depth.mkv")
        files[name] = Path(path)
    return files


def _predict_folder(
    scorer: Scorer,
    folder: Path,
    sources: list[Source],
    request: PredictRequest,
    lines: TextIO,
    alarm: tuple[str, AlarmRule] | None,
) -> Iterator[Predicted]:
    _make_folder("--png", request.png)
    _make_folder("--video", request.video)
    faults = 0
    with track(len(sources), "predict", show=request.out is not None) as advance:
        for source in sources:
            try:
                if source.problem:
                    raise DataError(f"'{source.path}' cannot be read: {source.problem}")
                file = os.path.relpath(source.path, folder)
                yield from _predict_files(scorer, source, request, lines, alarm, file)
            except DataError as error:
                faults += 1
                _say(f"error: {error}")
            advance()
    if faults:
        raise DataError(f"{faults} of {len(sources)} recordings in '{folder}' cannot be read in full")


def _predict_shards(
    scorer: Scorer, place: str, request: PredictRequest, lines: TextIO, alarm: tuple[str, AlarmRule] | None
) -> Iterator[Predicted]:
    """Scores packed clips by their keys, read as in evaluation."""
    material = find_material(place)
    assert material.index is not None
    check_packing(scorer.spec, material.index)
    _make_folder("--png", request.png)
    cut = material.cutter(scorer.spec, scorer.modalities, scorer.application, request.hop)
    faults = 0
    with track(len(material.items), "predict", show=request.out is not None) as advance:
        for item in material.items:
            told = PredictionLines(scorer, item.key, lines, alarm, item.key)
            png = request.png and request.png / f"{item.key}.png"
            try:
                with _recording(item.key, told, png) as outcome:
                    _follow(told, predict_pieces(scorer, cut(item)))
                yield from outcome.figures()
            except DataError as error:
                faults += 1
                _say(f"error: {error}")
            advance()
    if faults:
        raise DataError(f"{faults} of {len(material.items)} clips in '{place}' cannot be read")


def _make_folder(option: str, target: Path | None) -> None:
    try:
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{option} '{target}' must be a folder for several recordings") from error


def _predict_files(
    scorer: Scorer,
    source: Source,
    request: PredictRequest,
    lines: TextIO,
    alarm: tuple[str, AlarmRule] | None,
    file: str | None = None,
) -> Iterator[Predicted]:
    """Scores one recording; `file`: its name in the lines, if it is one of several."""
    png, video, path = request.png, request.video, source.path
    if file is not None:
        png = png and png / f"{source.key}.png"
        video = video and video / f"{source.key}.mp4"
    told = PredictionLines(scorer, file or path.name, lines, alarm, file)
    seconds = 0.0
    with _recording(path, told, png) as outcome:
        if video is not None:
            told.film = _film(path, video)
        if file is None and request.out is not None and not path.is_dir():
            seconds = probe(path).duration
        damage = Damage()
        rates = source.rates | request.rates
        events = predict(
            scorer, source.files, request.hop, rates=rates, damage=damage, max_seconds=request.max_seconds
        )
        try:
            with track(math.ceil(seconds), "predict", show=seconds > 0) as advance:
                _follow(told, events, advance)
        finally:
            told.predicted.damaged = damage.packets
            if damage:
                _say(f"'{path}': {damage}")
    yield from outcome.figures()


def _predict_address(
    scorer: Scorer, address: Address, request: PredictRequest, lines: TextIO, alarm: tuple[str, AlarmRule] | None
) -> Iterator[Predicted]:
    told = PredictionLines(scorer, str(address), lines, alarm)
    with _recording(address, told, request.png) as outcome:
        events = predict_live(scorer, LiveSource(address, request.patience, _say), request.hop)
        _follow(told, _with_notices(events))
    yield from outcome.figures()


def _film(path: Path, target: Path) -> "OverlayVideo":
    if path.is_dir():
        raise RequestError("--video needs a film, not a folder of frames")
    from ...tasks.prediction.video_overlay import OverlayVideo

    return OverlayVideo(path, target)


def _follow(
    told: PredictionLines,
    events: Iterator[Prediction | Gap],
    advance: Advance = lambda count=1, **fields: None,
) -> None:
    """Writes every event and moves the progress bar, in seconds."""
    shown = 0
    for event in events:
        told.add(event)
        advance(int(event.end) - shown)
        shown = int(event.end)


@dataclass
class _Outcome:
    """Figures of a recording at its end, and the fault that ended it."""

    told: PredictionLines
    fault: BaseException | None = None

    def figures(self) -> Iterator[Predicted]:
        """Yields the figures, also after a fault if a piece was scored; then raises the fault."""
        if self.told.predicted.windows or self.fault is None:
            yield self.told.predicted
        if self.fault is not None:
            raise self.fault


@contextmanager
def _recording(name: Path | Address | str, told: PredictionLines, png: Path | None) -> Iterator[_Outcome]:
    """Scores one recording in a block; its alarms, film and timeline are finished however the block ends.

    An interruption or a read error becomes the `fault` of the outcome; of a read error, a `DataError` with the last
    second read. A `RequestError` is raised at once.
    """
    outcome, whole = _Outcome(told), False
    try:
        try:
            yield outcome
            whole = True
        except BrokenPipeError:
            # The reader closed the pipe, as `head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            told.finish(whole)
            if png is not None and told.predicted.windows:
                told.draw(png)
    except RequestError:
        raise
    except (DataError, KeyboardInterrupt) as error:
        outcome.fault = error
    except UNREADABLE as error:
        end = f", beyond {told.predicted.seconds:g} s," if told.predicted.windows else ""
        outcome.fault = DataError(f"'{name}'{end} cannot be read: {reason_of(error)}")
        outcome.fault.__cause__ = error


def _with_notices(events: Iterator[Prediction | Gap]) -> Iterator[Prediction | Gap]:
    """Prints now and then how many pieces were dropped."""
    dropped, said = 0, -math.inf
    for event in events:
        if isinstance(event, Gap) and event.dropped:
            dropped += event.dropped
            if time.monotonic() - said >= SECONDS_BETWEEN_NOTICES:
                _say(f"at {event.end:.0f} s: {dropped} windows dropped so far, {event.reason}")
                said = time.monotonic()
        yield event


def _say(text: str) -> None:
    print(masked(text), file=sys.stderr, flush=True)


@contextmanager
def _lines_to(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        file = out.open("w", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write '{out}' ({error.strerror}): give another --out") from error
    with file:
        yield file
