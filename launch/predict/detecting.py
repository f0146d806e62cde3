"""`detect`: a classifier's windows over untrimmed recordings, compared with a table of events."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...fusion.bundle.bundle import Bundle
from ...fusion.classifier import Classifier
from ...shards.errors import DataError, RequestError, choice_error
from ...shards.index.label_table import read_table
from ...shards.index.unreadable import UNREADABLE, reason_of
from ...shards.packing.sources import Source, find_sources
from ...tasks.metrics.detection import ScoredVideo, detection_tables, detection_warning
from ...tasks.prediction.window_scores import predict
from ...tasks.records import Result, new_result
from .predicting import deployed_bundle

COLUMNS = ("video", "start", "end")


@dataclass(frozen=True)
class Span:
    """A line of the table: the file name as written, seconds, and the label (empty if none)."""

    video: str
    start: float
    end: float
    label: str
    line: int


def detect(
    model: Path,
    folder: Path,
    spans: Path,
    *,
    label: str | None = None,
    hop: float | None = None,
    threshold: float | None = None,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ScoredVideo], Result]:
    """Scores every recording of `folder`; recordings that `spans` does not name have no events.

    If the folder has a `labels.csv`, only the recordings named in it are scored, as `predict` scores them. `label`:
    the class to find; default: the positive one. `threshold` of an alarm; default: the model's, or 0.5. Raises
    `RequestError` if the table does not fit the recordings or the model, `DataError` for an unreadable recording.
    """
    bundle = deployed_bundle(model)
    label = _class(bundle, label)
    # A recording that neither table names may have events.
    sources = find_sources(folder, labelled_only=True)
    held = _by_source(read_spans(spans), sources, folder, spans, label)
    videos = []
    for number, source in enumerate(sources):
        if progress is not None:
            progress(number, len(sources))
        videos.append(_scored(bundle, source, folder, held.get(source.key, []), label, hop, spans))
    if progress is not None:
        progress(len(sources), len(sources))
    carried = bundle.application.threshold
    chosen = threshold if threshold is not None else 0.5 if carried is None else carried
    tables = detection_tables(videos, bundle.spec.fps, chosen)
    warnings = detection_warning(videos, bundle.spec.fps)
    return videos, new_result("detect", f"Detection of '{label}' in {folder.name}", command, tables, [], warnings)


def read_spans(path: Path) -> list[Span]:
    """Reads the table `video,start,end[,label]`; a row without times names a recording without events.

    Raises `RequestError` for a file that is not such a table, and for an invalid span.
    """
    rows = read_table(path, "table of spans", (*COLUMNS, "label"))
    if not rows or any(column not in rows[0][1] for column in COLUMNS):
        raise RequestError(f"'{path}' needs the columns video,start,end, and label if there are several labels")
    found = []
    for line, row in rows:
        if not (row["start"] or row["end"]):
            found.append(Span(row["video"], 0.0, 0.0, "", line))
            continue
        try:
            start, end = float(row["start"]), float(row["end"])
        except (TypeError, ValueError):
            start = end = math.nan
        if not 0 <= start < end < math.inf:
            raise RequestError(f"'{path}', line {line}: start and end must be seconds with 0 <= start < end")
        found.append(Span(row["video"], start, end, row.get("label") or "", line))
    return found


def _class(bundle: Bundle, label: str | None) -> str:
    if not isinstance(bundle.model, Classifier):
        raise RequestError("this bundle is an encoder without classes: give a bundle from `modalgate finetune`")
    classes = bundle.model.classes
    chosen = label or bundle.positive
    if chosen is None:
        raise RequestError(f"no class to find: give --label with one of {', '.join(classes)}")
    if chosen not in classes:
        raise choice_error("class for --label", chosen, classes)
    return chosen


def _by_source(
    spans: list[Span], sources: list[Source], folder: Path, table: Path, label: str
) -> dict[str, list[Span]]:
    """The spans of the class to find, by key of their recording."""
    names: dict[str, set[str]] = {}
    for source in sources:
        if source.problem:
            raise DataError(f"'{source.path}' cannot be read: {source.problem}")
        for name in {source.path.stem, source.path.name, _name(source, folder)}:
            names.setdefault(name, set()).add(source.key)
    labels = {span.label for span in spans if span.label}
    if labels and label not in labels:
        raise choice_error(f"label in '{table}'", label, labels)
    held: dict[str, list[Span]] = {}
    for span in spans:
        keys = names.get(span.video, set())
        if len(keys) != 1:
            found = f"{len(keys)} recordings are" if keys else "no recording is"
            raise RequestError(
                f"'{table}', line {span.line}: {found} called '{span.video}' in '{folder}': give paths relative to it"
            )
        if span.end and span.label in ("", label):
            held.setdefault(next(iter(keys)), []).append(span)
    if not held:
        raise RequestError(f"'{table}' has no span of '{label}'")
    return held


def _scored(
    bundle: Bundle, source: Source, folder: Path, spans: list[Span], label: str, hop: float | None, table: Path
) -> ScoredVideo:
    try:
        windows = list(predict(bundle, source.files, hop, rates=source.rates, max_seconds=math.inf))
    except UNREADABLE as error:
        raise DataError(f"'{source.path}' cannot be read: {reason_of(error)}") from error
    starts, ends = (np.array([getattr(window, edge) for window in windows]) for edge in ("start", "end"))
    for span in spans:
        if span.start >= ends.max():
            raise RequestError(
                f"'{table}', line {span.line}: the span starts at {span.start:g} s, '{source.path.name}' ends at "
                f"{ends.max():g} s"
            )
    scores = np.array([window.probabilities[label] for window in windows])
    return ScoredVideo(_name(source, folder), starts, ends, scores, tuple((span.start, span.end) for span in spans))


def _name(source: Source, folder: Path) -> str:
    return str(source.path.relative_to(folder) if source.path.is_relative_to(folder) else source.path)
