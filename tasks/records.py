"""The record of an evaluation: tables and figures as plain data, stored in the run folder and read by the report."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ..shards.errors import DataError, RequestError
from ..shards.index.whole_file import write_whole

Cell = str | float | int | None
PACKAGES = ("modalgate", "torch", "torchvision", "torchaudio", "timm", "lightly", "webdataset", "accelerate", "av")


@dataclass(frozen=True)
class Table:
    """Rows of cells under column headers."""

    title: str
    columns: list[str]
    """Column headers."""
    rows: list[list[Cell]]
    """One list of cells per row, as long as `columns`."""
    note: str = ""
    """How the rows were computed, shown below the table."""
    folded: bool = False
    """Hide the table in the report until the reader opens it."""

    def __post_init__(self) -> None:
        _same_length(f"table '{self.title}'", self.columns, *self.rows)


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix."""

    title: str
    classes: list[str]
    """Class names, in the order of rows and columns."""
    matrix: list[list[int]]
    """Counts: rows are true classes, columns are predicted classes."""
    kind: Literal["confusion"] = "confusion"

    def __post_init__(self) -> None:
        _same_length(f"confusion '{self.title}'", self.classes, self.matrix, *self.matrix)


@dataclass(frozen=True)
class Curves:
    """Lines through (x, y) points, such as ROC and precision-recall curves."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]]
    """Points of each line, by name."""
    diagonal: bool = False
    """Draw the diagonal that marks chance."""
    kind: Literal["curves"] = "curves"

    def __post_init__(self) -> None:
        for points in self.series.values():
            _same_length(f"curves '{self.title}'", (0, 1), *points)


@dataclass(frozen=True)
class LevelCurves:
    """Values at ordered levels, such as accuracy at rising noise. Unknown values are NaN."""

    title: str
    x_label: str
    y_label: str
    levels: list[str]
    """Names of the levels. They are drawn at equal distances."""
    series: dict[str, list[float]]
    """One value between 0 and 1 per level, by curve."""
    bands: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Intervals (low, high) per level, by curve. Curves may lack one."""
    below: dict[str, list[float]] = field(default_factory=dict)
    """Values drawn in a second panel at the same levels, such as gate weights."""
    kind: Literal["levels"] = "levels"

    def __post_init__(self) -> None:
        values = (*self.series.values(), *self.bands.values(), *self.below.values())
        _same_length(f"curves '{self.title}'", self.levels, *values)


@dataclass(frozen=True)
class Example:
    """One clip and its prediction."""

    key: str
    """Key of the clip in its shards."""
    verdict: str
    """Short judgement of the prediction, such as `right` or `wrong`."""
    truth: str
    """True class."""
    guess: str
    """Predicted class."""
    probability: float
    """Probability of the predicted class."""
    weights: dict[str, float]
    """Gate weight by modality."""
    picture: str
    """Path of a PNG, relative to the folder of the result file."""


@dataclass(frozen=True)
class Examples:
    """Example clips, in display order."""

    title: str
    clips: list[Example]
    kind: Literal["examples"] = "examples"


@dataclass(frozen=True)
class Gates:
    """Mean gate weights."""

    title: str
    modalities: list[str]
    groups: list[str]
    """Names of the rows, such as classes."""
    weights: list[list[float]]
    """One row per group, one column per modality."""
    kind: Literal["gates"] = "gates"

    def __post_init__(self) -> None:
        _same_length(f"gates '{self.title}'", self.groups, self.weights)
        _same_length(f"gates '{self.title}'", self.modalities, *self.weights)


@dataclass(frozen=True)
class Timeline:
    """Scores and gate weights over the time of a recording."""

    title: str
    times: list[float]
    """Times in seconds."""
    scores: dict[str, list[float]]
    """One score per time, by class."""
    gates: dict[str, list[float]]
    """One gate weight per time, by modality."""
    marks: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Time spans (begin, end) in seconds by name, such as the span in which a sensor failed."""
    kind: Literal["timeline"] = "timeline"

    def __post_init__(self) -> None:
        _same_length(f"timeline '{self.title}'", self.times, *self.scores.values(), *self.gates.values())


Figure = Confusion | Curves | LevelCurves | Examples | Gates | Timeline
FIGURES: dict[str, type[Figure]] = {
    "confusion": Confusion,
    "curves": Curves,
    "levels": LevelCurves,
    "examples": Examples,
    "gates": Gates,
    "timeline": Timeline,
}


@dataclass(frozen=True)
class Result:
    """Record of one evaluation."""

    name: str
    """Name of the JSON file, without suffix."""
    title: str
    command: str
    """Command line that produced the record."""
    created: str
    """Time of creation in ISO 8601, UTC."""
    versions: dict[str, str]
    """Version by package."""
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Warnings about the results, one sentence or two each."""


def new_result(
    name: str,
    title: str,
    command: str,
    tables: list[Table],
    figures: list[Figure],
    warnings: Sequence[str] = (),
) -> Result:
    """Returns a record with the current time and package versions."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Result(name, title, command, created, versions(), tables, figures, list(warnings))


def versions() -> dict[str, str]:
    """Returns the versions of Python and the main packages, without importing them. Skips missing packages."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def scores_file(run: Path) -> Path:
    """Returns the path of the test scores that fine-tuning stored in `run`.

    Raises `RequestError` if the file is missing.
    """
    path = run / "results" / "scores.safetensors"
    if not path.is_file():
        raise RequestError(f"'{run}' has no scores of test clips: give run folders written by `modalgate finetune`")
    return path


def save_result(result: Result, run: Path) -> Path:
    """Writes RUN/results/NAME.json atomically and returns its path. Writes NaN and infinities as null."""
    target = run / "results" / f"{result.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, (json.dumps(_finite(asdict(result)), indent=1, allow_nan=False) + "\n").encode())
    return target


def load_result(path: Path) -> Result:
    """Reads a record written by `save_result`. Raises `DataError` with the file's path if the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = [Table(**entry) for entry in content.pop("tables")]
        figures = [_figure(entry) for entry in content.pop("figures")]
        return Result(**content, tables=tables, figures=figures)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"result file '{path}' is damaged ({error!r}): rerun the command that wrote it") from error


def _figure(entry: dict[str, Any]) -> Figure:
    if entry["kind"] == "curves":
        series = {name: [tuple(point) for point in points] for name, points in entry["series"].items()}
        entry = entry | {"series": series}
    if entry["kind"] == "levels":
        bands = {name: [tuple(pair) for pair in pairs] for name, pairs in entry["bands"].items()}
        entry = entry | {"bands": bands}
    if entry["kind"] == "timeline":
        entry = entry | {"marks": {name: tuple(pair) for name, pair in entry.get("marks", {}).items()}}
    if entry["kind"] == "examples":
        entry = entry | {"clips": [Example(**clip) for clip in entry["clips"]]}
    return FIGURES[entry["kind"]](**entry)


def _same_length(what: str, first: Sequence[Any], *others: Sequence[Any]) -> None:
    for other in others:
        if len(other) != len(first):
            raise ValueError(f"{what}: {len(other)} values, expected {len(first)}")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
