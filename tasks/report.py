"""One self-contained HTML page of one or several runs."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from ..shards.errors import DataError, RequestError
from .figures import draw_figure, draw_lines
from .results import Result, load_result

POINTS = 500
Series = dict[str, list[tuple[float, float]]]


@dataclass
class RunPage:
    """What the page shows of one run; pictures as (caption, SVG)."""

    name: str
    command: str
    curves: list[tuple[str, Markup]]
    results: list[tuple[Result, list[tuple[str, Markup]]]]
    contact: str | None
    config: str
    last: dict[str, float] = field(default_factory=dict)


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Writes the page; it opens with no network and no other file.

    Raises `RequestError` for a folder that holds neither metrics nor results, and `DataError` for a damaged file.
    """
    pages = [read_run(run) for run in runs]
    environment = Environment(
        loader=PackageLoader(f"{__package__}", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = format_cell
    html = environment.get_template("report.html.j2").render(pages=pages)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(html, encoding="utf-8")
    os.replace(partial, out)


def read_run(run: Path) -> RunPage:
    """A run folder as a page."""
    metrics, results, config = run / "metrics.jsonl", run / "results", run / "config.yaml"
    files = sorted(results.glob("*.json")) if results.is_dir() else []
    if not run.is_dir() or not (metrics.is_file() or files):
        raise RequestError(f"'{run}' is no run folder: it holds neither metrics.jsonl nor results")
    settings = _read_config(config)
    series = read_series(metrics) if metrics.is_file() else {}
    contact = run / "contact.png"
    loaded = [load_result(path) for path in files]
    return RunPage(
        run.name,
        " ".join(settings.get("command", [])),
        [(title, Markup(draw_lines(lines, "step", ""))) for title, lines in group_series(series).items()],
        [(result, [(f.title, Markup(draw_figure(f))) for f in result.figures]) for result in loaded],
        base64.b64encode(contact.read_bytes()).decode() if contact.is_file() else None,
        yaml.safe_dump(settings, sort_keys=False) if settings else "",
        {name: points[-1][1] for name, points in series.items()},
    )


def read_series(path: Path) -> Series:
    """Points (step, value) by name, thinned to at most `POINTS` each."""
    series: Series = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            step = float(entry["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"'{path}', line {number} is damaged ({error!r})") from error
        for name, value in entry.items():
            if isinstance(value, int | float) and name not in ("step", "time"):
                series.setdefault(name, []).append((step, float(value)))
    return {name: _thin(points) for name, points in series.items()}


def group_series(series: Series) -> dict[str, Series]:
    """Series by what they show: losses, accuracies, gate weights, speed; the rest under their own names."""
    titles = {"loss": "Losses", "accuracy": "Task accuracies"}
    groups: dict[str, Series] = {}
    for name, points in series.items():
        kind = name.rpartition("/")[2]
        if name.startswith("gate/") and kind != "loss":
            groups.setdefault("Mean gate weights", {})[kind] = points
        elif kind in titles:
            groups.setdefault(titles[kind], {})[name.removesuffix(f"/{kind}") or name] = points
        elif name in ("embedding/std", "clips_per_second", "learning_rate"):
            groups[{"embedding/std": "Spread of the fused embedding"}.get(name, name.replace("_", " "))] = {
                name: points
            }
    return groups


def format_cell(value: Any) -> str:
    """A table's cell: three decimals for numbers that are not whole, a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(points) // POINTS)
    return points if stride == 1 else [*points[::stride], points[-1]]


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}
