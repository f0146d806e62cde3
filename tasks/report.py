"""One self-contained HTML page of one or several run folders: curves, tables, figures and the config."""

import base64
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ..shards.errors import DataError, RequestError
from .figures import Drawing, draw, draw_series, thin
from .results import Cell, Result, Table, load_result

GATE = "gate/"


@dataclass(frozen=True)
class Curve:
    """One name of metrics.jsonl, thinned: the means of `lines` neighbouring lines at a time."""

    steps: list[float]
    values: list[float]
    lines: int


@dataclass(frozen=True)
class Section:
    """A heading over small multiples; a `folded` one is shown on request."""

    title: str
    drawings: list[Drawing]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Run:
    """What the page shows of one run folder; `facts` are the lines under its name."""

    name: str
    facts: list[tuple[str, str]]
    sections: list[Section]
    results: list[tuple[Result, list[Drawing]]]
    contact: str | None
    config: str


def write_report(runs: Sequence[Path], out: Path, common: Sequence[Result] = ()) -> None:
    """Writes the page atomically; it fetches nothing and runs no script. `common`: results of all runs together.

    Raises `RequestError`, naming it, for a folder that is missing or no run (it has no config.yaml), and where `out`
    cannot be written; `DataError` for a damaged file of a run.
    """
    if not runs:
        raise RequestError("no run to report on: give at least one run folder")
    shown = [_read_run(Path(run)) for run in runs]
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": format_cell, "numeric_columns": _numeric_columns}
    page = environment.get_template("report.html.j2").render(
        runs=shown, common=[(result, _drawn(result)) for result in common], today=datetime.now(UTC).date().isoformat()
    )
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RequestError(f"cannot write the report '{out}' ({error.strerror}): give another file") from error


def read_curves(path: Path) -> dict[str, Curve]:
    """Every name of a metrics.jsonl with its values over steps; a last line cut short by a kill is left out.

    Values of null, logged where they were not finite, are left out of the means. Raises `DataError`, naming the
    line, for a damaged file.
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
    """A table's cell as text: three decimals, so that shares line up; a dash for what is not known."""
    if cell is None:
        return "–"
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.3f}" if cell == 0 or 0.001 <= abs(cell) < 100 else f"{cell:.4g}"


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
        raise RequestError(f"no run folder at '{run}': give one that `modalgate pretrain` or `finetune` wrote")
    path = run / "config.yaml"
    if not path.is_file():
        raise RequestError(f"'{run}' is no run folder, it has no config.yaml: give one under runs/")
    try:
        text = path.read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise DataError(f"'{path}' is damaged: it holds no keys")
    results = sorted((load_result(file) for file in run.glob("results/*.json")), key=lambda result: result.created)
    sections = []
    # Cross-validation leaves one training per fold beside the common results.
    for folder in (run, *sorted(run.glob("fold-*"))):
        metrics = folder / "metrics.jsonl"
        if metrics.is_file():
            sections += _sections(read_curves(metrics), "" if folder == run else f", {folder.name}")
    contact = run / "contact.png"
    return Run(
        run.resolve().name,
        _facts(settings, path, results, run),
        sections,
        [(result, _drawn(result)) for result in results],
        base64.b64encode(contact.read_bytes()).decode() if contact.is_file() else None,
        text,
    )


def _drawn(result: Result) -> list[Drawing]:
    return [drawing for figure in result.figures for drawing in draw(figure)]


def _facts(settings: dict[str, Any], config: Path, results: Sequence[Result], run: Path) -> list[tuple[str, str]]:
    started = datetime.fromtimestamp(config.stat().st_mtime, UTC)
    facts = [("kind", str(settings["kind"]))] if "kind" in settings else []
    facts.append(("date", f"{started:%Y-%m-%d %H:%M} UTC"))
    command = settings.get("command")
    if command:
        facts.append(("command", shlex.join(map(str, command)) if isinstance(command, list) else str(command)))
    versions = results[-1].versions if results else _bundle_versions(run / "encoder" / "encoder.json")
    if versions:
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    return facts


def _bundle_versions(path: Path) -> dict[str, str]:
    """What an exported encoder says made it: all that is known of a run that was not evaluated."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["provenance"].get("versions", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged ({error!r}): export the run again") from error


def _sections(curves: dict[str, Curve], of: str) -> list[Section]:
    """Losses, accuracies, the gates together, and folded away whatever else was logged."""
    # A fusion without a loss of its own logs zeros.
    losses = [name for name in curves if _last_part(name) == "loss" and np.any(np.nan_to_num(curves[name].values))]
    accuracies = [name for name in curves if _last_part(name) == "accuracy"]
    gates = [name for name in curves if name.startswith(GATE) and _last_part(name) != "loss"]
    others = [name for name in curves if name not in {*losses, *accuracies, *gates}]
    lines = max((curve.lines for curve in curves.values()), default=1)
    note = f"Each point is the mean of {lines} logged lines." if lines > 1 else ""
    together = {name.removeprefix(GATE): (curves[name].steps, curves[name].values) for name in gates}
    sections = [
        Section(f"Losses{of}", _panels(curves, losses), note),
        Section(f"Accuracies{of}", _panels(curves, accuracies, share=True), note),
        Section(f"Gate weights{of}", [draw_series("mean gate weight", together, share=True)] if gates else [], note),
        Section(f"Other measurements{of}", _panels(curves, others), note, folded=True),
    ]
    return [section for section in sections if section.drawings]


def _panels(curves: dict[str, Curve], names: Sequence[str], share: bool = False) -> list[Drawing]:
    return [draw_series(name, {name: (curves[name].steps, curves[name].values)}, share) for name in names]


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
