"""What an evaluating verb leaves in a run folder, and the report reads: tables and figures as plain data."""

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
    """Rows of cells under `columns`; `note` says how they were made. A `folded` one is shown on request."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        _same_length(f"table '{self.title}'", self.columns, *self.rows)


@dataclass(frozen=True)
class Confusion:
    """Counts: rows the truth, columns the guess, both in the order of `classes`."""

    title: str
    classes: list[str]
    matrix: list[list[int]]
    kind: Literal["confusion"] = "confusion"

    def __post_init__(self) -> None:
        _same_length(f"confusion '{self.title}'", self.classes, self.matrix, *self.matrix)


@dataclass(frozen=True)
class Curves:
    """Lines of (x, y) points by name, such as ROC and precision-recall; `diagonal` draws the line of chance."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]]
    diagonal: bool = False
    kind: Literal["curves"] = "curves"

    def __post_init__(self) -> None:
        for points in self.series.values():
            _same_length(f"curves '{self.title}'", (0, 1), *points)


@dataclass(frozen=True)
class LevelCurves:
    """Shares of one by name at `levels`, which are drawn evenly apart; `bands`: intervals (low, high) of some of
    them; `below`: what is drawn under them at the same levels, such as gate weights. Unknown values are none."""

    title: str
    x_label: str
    y_label: str
    levels: list[str]
    series: dict[str, list[float]]
    bands: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    below: dict[str, list[float]] = field(default_factory=dict)
    kind: Literal["levels"] = "levels"

    def __post_init__(self) -> None:
        values = (*self.series.values(), *self.bands.values(), *self.below.values())
        _same_length(f"curves '{self.title}'", self.levels, *values)


@dataclass(frozen=True)
class Example:
    """A clip with what was said of it: `verdict`, such as right or wrong; the probability of the `guess`; gate
    `weights`; `picture`: a PNG beside the result's file."""

    key: str
    verdict: str
    truth: str
    guess: str
    probability: float
    weights: dict[str, float]
    picture: str


@dataclass(frozen=True)
class Examples:
    """Clips to look at, in the order given."""

    title: str
    clips: list[Example]
    kind: Literal["examples"] = "examples"


@dataclass(frozen=True)
class Gates:
    """Mean gate weights: a row for each of `groups` (classes, say), a column for each modality."""

    title: str
    modalities: list[str]
    groups: list[str]
    weights: list[list[float]]
    kind: Literal["gates"] = "gates"

    def __post_init__(self) -> None:
        _same_length(f"gates '{self.title}'", self.groups, self.weights)
        _same_length(f"gates '{self.title}'", self.modalities, *self.weights)


@dataclass(frozen=True)
class Timeline:
    """Scores by class and gate weights by modality at `times` in seconds; `marks`: stretches of time, from one second
    to another, by what happened in them, such as a sensor that was broken."""

    title: str
    times: list[float]
    scores: dict[str, list[float]]
    gates: dict[str, list[float]]
    marks: dict[str, tuple[float, float]] = field(default_factory=dict)
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
    """One evaluation: `name` is the file it is kept in, `created` an ISO time, `command` what a person typed;
    `warnings`: lines that say what to make of its figures."""

    name: str
    title: str
    command: str
    created: str
    versions: dict[str, str]
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def new_result(
    name: str,
    title: str,
    command: str,
    tables: list[Table],
    figures: list[Figure],
    warnings: Sequence[str] = (),
) -> Result:
    """A record of now, with the versions that made it."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Result(name, title, command, created, versions(), tables, figures, list(warnings))


def versions() -> dict[str, str]:
    """Python's and the main packages' versions, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def scores_file(run: Path) -> Path:
    """Where fine-tuning keeps the scores of `run`'s test clips; `RequestError` where there are none."""
    path = run / "results" / "scores.safetensors"
    if not path.is_file():
        raise RequestError(f"'{run}' holds no scores of test clips: give run folders of `modalgate finetune`")
    return path


def save_result(result: Result, run: Path) -> Path:
    """Writes RUN/results/NAME.json atomically and returns it; numbers that are not finite become null."""
    target = run / "results" / f"{result.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, (json.dumps(_finite(asdict(result)), indent=1, allow_nan=False) + "\n").encode())
    return target


def load_result(path: Path) -> Result:
    """Reads what `save_result` wrote; `DataError` names a damaged file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = [Table(**entry) for entry in content.pop("tables")]
        figures = [_figure(entry) for entry in content.pop("figures")]
        return Result(**content, tables=tables, figures=figures)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"result file '{path}' is damaged ({error!r}): run its command again") from error


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
            raise ValueError(f"{what}: {len(other)} values where {len(first)} belong")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
