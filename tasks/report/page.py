"""A self-contained HTML page about one or several run folders: curves, tables, figures and configuration."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ...shards.errors import DataError, RequestError
from ...shards.index.whole_file import write_whole
from ..records import Cell, Example, Examples, Result, Table, load_result
from .charts import draw, draw_series
from .provenance import FINAL, read_warnings, run_facts
from .style import Drawing, thin

GATE = "gate/"


@dataclass(frozen=True)
class Curve:
    """One name of metrics.jsonl. Neighbouring lines are averaged to limit the number of points."""

    steps: list[float]
    values: list[float]
    lines: int
    """Number of lines averaged per point."""


@dataclass(frozen=True)
class Section:
    """A heading with a grid of small figures."""

    title: str
    drawings: list[Drawing]
    note: str = ""
    folded: bool = False
    """Hide the section until the reader opens it."""


@dataclass(frozen=True)
class Picture:
    """An example clip and its picture."""

    example: Example
    png: str | None
    """PNG in base64. None if the file is missing."""


@dataclass(frozen=True)
class Evaluation:
    """A result with its figures."""

    result: Result
    drawings: list[Drawing]
    examples: list[tuple[str, list[Picture]]]
    """Example clips, with their titles."""


@dataclass(frozen=True)
class Run:
    """Content of the page about one run folder."""

    name: str
    command: str
    """Command line that started the run."""
    facts: list[tuple[str, str]]
    """(name, value) lines below the heading."""
    warnings: list[str]
    """Warnings of its training."""
    sections: list[Section]
    results: list[Evaluation]
    contact: str | None
    """Contact sheet of example clips, PNG in base64."""
    config: str


def write_report(runs: Sequence[Path], out: Path, common: Sequence[Result] = ()) -> None:
    """Writes the page atomically. It loads nothing from the network and runs no script.

    - `common`: results about all runs together.

    Raises `RequestError` for a folder that is missing or not a run (it has no config.yaml), and if `out` cannot be
    written. Raises `DataError` for a damaged file of a run.
    """
    if not runs:
        raise RequestError("no runs: give at least one run folder")
    shown = [_read_run(Path(run)) for run in runs]
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": format_cell, "numeric_columns": _numeric_columns, "moment": format_moment}
    page = environment.get_template("report.html.j2").render(
        runs=shown, common=[_drawn(result) for result in common], today=datetime.now(UTC).date().isoformat()
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, page.encode())
    except OSError as error:
        raise RequestError(f"cannot write the report '{out}' ({error.strerror}): choose another file") from error


def read_curves(path: Path) -> dict[str, Curve]:
    """Returns the values of every name in a metrics.jsonl over steps. Ignores an incomplete last line.

    Null stands for a value that was not finite and is dropped from means. Raises `DataError` with the line number for
    a damaged file.
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            entry = json.loads(line)
            step = float(entry.pop("step"))
            for name, value in entry.items():
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(np.nan if value is None else float(value))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"'{path}' is damaged in line {number}: {error!r}") from error
    found.pop("time", None)
    return {name: _curve(np.array(steps), np.array(values)) for name, (steps, values) in found.items()}


def format_cell(cell: Cell) -> str:
    """Returns a table cell as text, with three decimals so that shares line up. A dash for an unknown value."""
    if cell is None:
        return "–"
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.3f}" if cell == 0 or 0.001 <= abs(cell) < 100 else f"{cell:.4g}"


def format_moment(time: str) -> str:
    """Returns an ISO time in readable form, to the minute. Text that is not a time is returned unchanged."""
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return time


def _numeric_columns(table: Table) -> set[int]:
    return {
        number
        for number in range(len(table.columns))
        if table.rows and all(not isinstance(row[number], str) for row in table.rows)
    }


def _whole_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line for line in file if line.endswith("\n"))


def _curve(steps: NDArray[np.float64], values: NDArray[np.float64]) -> Curve:
    kept = thin(steps)
    return Curve(kept.tolist(), thin(values).tolist(), -(-len(steps) // len(kept)))


def _read_run(run: Path) -> Run:
    if not run.is_dir():
        raise RequestError(
            f"no run folder at '{run}': give one written by `modalgate pretrain` or `modalgate finetune`"
        )
    path = run / "config.yaml"
    if not path.is_file():
        raise RequestError(f"'{run}' is not a run folder, it has no config.yaml: give a folder under runs/")
    try:
        text = path.read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise DataError(f"'{path}' is damaged: it has no keys")
    found = [load_result(file) for file in run.glob("results/*.json")]
    results = sorted(found, key=lambda result: (result.created, result.name))
    sections = []
    # Cross-validation stores one training per fold next to the common results.
    folds = sorted((file.parent for file in run.glob("*/metrics.jsonl")), key=lambda fold: (fold.name == FINAL, fold))
    for place, folder in enumerate(folder for folder in (run, *folds) if (folder / "metrics.jsonl").is_file()):
        of = "" if folder == run else f", {folder.name}"
        sections += _sections(read_curves(folder / "metrics.jsonl"), of, folded=place > 0)
    contact = run / "contact.png"
    return Run(
        run.resolve().name,
        " ".join(map(str, settings.get("command") or [])),
        run_facts(run, settings, results),
        read_warnings(run),
        sections,
        [_drawn(result, run / "results") for result in results],
        base64.b64encode(contact.read_bytes()).decode() if contact.is_file() else None,
        text,
    )


def _drawn(result: Result, folder: Path | None = None) -> Evaluation:
    examples = [figure for figure in result.figures if isinstance(figure, Examples) and figure.clips]
    return Evaluation(
        result,
        [drawing for figure in result.figures for drawing in draw(figure)],
        [
            (entry.title, [Picture(clip, _encoded(folder, clip.picture)) for clip in entry.clips])
            for entry in examples
        ],
    )


def _encoded(folder: Path | None, name: str) -> str | None:
    """Returns a picture in the result's folder as base64. Files outside the folder are not read."""
    if folder is None or not (folder / name).resolve().is_relative_to(folder.resolve()):
        return None
    return base64.b64encode((folder / name).read_bytes()).decode() if (folder / name).is_file() else None


def _sections(curves: dict[str, Curve], of: str, folded: bool) -> list[Section]:
    """Returns losses, accuracies and gate weights, and a folded section with all other measurements."""
    # A fusion without a loss logs zeros.
    losses = [name for name in curves if _last_part(name) == "loss" and np.any(np.nan_to_num(curves[name].values))]
    accuracies = [name for name in curves if _last_part(name) == "accuracy" or name == "probe/knn"]
    gates = [name for name in curves if name.startswith(GATE) and _last_part(name) != "loss"]
    chances = {_chance_of(name) for name in accuracies}
    others = [name for name in curves if name not in {*losses, *accuracies, *gates, *chances}]
    lines = max((curve.lines for curve in curves.values()), default=1)
    note = f"Each point is the mean of {lines} logged lines." if lines > 1 else ""
    together = {name.removeprefix(GATE): (curves[name].steps, curves[name].values) for name in gates}
    sections = [
        Section(f"Losses{of}", _panels(curves, losses), note, folded),
        Section(f"Accuracies{of}", [_beside_chance(curves, name) for name in accuracies], note, folded),
        Section(
            f"Gate weights{of}",
            [draw_series("mean gate weight", together, share=True)] if gates else [],
            note,
            folded,
        ),
        Section(f"Other measurements{of}", _panels(curves, others), note, folded=True),
    ]
    return [section for section in sections if section.drawings]


def _panels(curves: dict[str, Curve], names: Sequence[str]) -> list[Drawing]:
    return [draw_series(name, {name: (curves[name].steps, curves[name].values)}) for name in names]


def _beside_chance(curves: dict[str, Curve], name: str) -> Drawing:
    """Draws an accuracy over steps, with its chance level if that was logged."""
    shown = {name: name} | ({"chance": _chance_of(name)} if _chance_of(name) in curves else {})
    series = {label: (curves[entry].steps, curves[entry].values) for label, entry in shown.items()}
    return draw_series(name, series, share=True)


def _chance_of(name: str) -> str:
    return f"{name.rpartition('/')[0]}/chance"


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
