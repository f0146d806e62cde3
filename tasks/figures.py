"""Plots of the report: SVG that follows the page's light or dark scheme."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from .results import Confusion, Curves, Gates, Timeline

COLOURS = ("#3b6fb6", "#c8553d", "#4d9078", "#8d6a9f", "#d39b2a", "#5b8e9e", "#a0556f", "#6b7a3a")
# Ink and grid are drawn in colours that occur nowhere else, and become the page's own when the SVG is cut out.
_INK, _GRID = "#010203", "#040506"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "modalgate",
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    # Labels come from data: a dollar sign must not start a formula.
    "text.parse_math": False,
}


def draw_lines(series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> str:
    """SVG of lines by name."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axis = figure.subplots()
        for name, points in series.items():
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1.4)
        _finish(axis, x_label, y_label, len(series))
        return _svg(figure)


def draw_figure(figure: Confusion | Curves | Gates | Timeline) -> str:
    """SVG of one figure of a result."""
    with matplotlib.rc_context(_STYLE):
        if isinstance(figure, Timeline):
            return _svg(_timeline(figure))
        if isinstance(figure, Curves):
            return _svg(_curves(figure))
        rows = figure.classes if isinstance(figure, Confusion) else figure.groups
        columns = figure.classes if isinstance(figure, Confusion) else figure.modalities
        values = figure.matrix if isinstance(figure, Confusion) else figure.weights
        return _svg(_heat_map(rows, columns, values, whole=isinstance(figure, Confusion)))


def draw_timeline(figure: Timeline, target: Path) -> None:
    """The timeline as a PNG of its own."""
    with matplotlib.rc_context(_STYLE | {"axes.edgecolor": "0.7", "text.color": "black", "axes.labelcolor": "black"}):
        plot = _timeline(figure)
        plot.axes[0].set_title(figure.title)
        plot.savefig(target, dpi=130, format="png")


def _curves(figure: Curves) -> Figure:
    plot = Figure(figsize=(3.8, 3.4), layout="constrained")
    axis = plot.subplots()
    for name, points in figure.series.items():
        axis.plot(*zip(*points, strict=True), label=name, linewidth=1.6)
    if figure.diagonal:
        axis.plot([0, 1], [0, 1], linestyle=":", color=_GRID, linewidth=1)
        axis.set_aspect("equal")
    _finish(axis, figure.x_label, figure.y_label, len(figure.series))
    return plot


def _timeline(figure: Timeline) -> Figure:
    plot = Figure(figsize=(6.4, 3.6), layout="constrained")
    upper, lower = plot.subplots(2, 1, sharex=True)
    for axis, lines, label in ((upper, figure.scores, "probability"), (lower, figure.gates, "gate weight")):
        for name, values in lines.items():
            axis.plot(figure.times, values, label=name, marker=".", linewidth=1.4)
        axis.set_ylim(-0.03, 1.03)
        _finish(axis, "", label, 2)
    lower.set_xlabel("seconds")
    return plot


def _heat_map(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], whole: bool) -> Figure:
    plot = Figure(figsize=(1.6 + 0.62 * len(columns), 0.9 + 0.34 * len(rows)), layout="constrained")
    axis = plot.subplots()
    totals = [max(sum(row), 1) if whole else 1 for row in values]
    shares = [[value / total for value in row] for row, total in zip(values, totals, strict=True)]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            colour = "white" if shares[y][x] > 0.5 else "#1c2733"
            axis.text(
                x, y, f"{value:d}" if whole else f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7.5
            )  # pyright: ignore
    axis.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return plot


def _finish(axis: Any, x_label: str, y_label: str, lines: int) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(color=_GRID, linewidth=0.5)
    axis.tick_params(length=0)
    if lines > 1:
        axis.legend(frameon=False, fontsize=7.5)


def _svg(figure: Figure) -> str:
    """The figure as inline SVG, in the page's ink, without fixed size or links."""
    target = io.StringIO()
    figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text)
    # Ids are equal in every plot; one page holds many.
    unique = f"f{abs(hash(text)):x}"
    text = re.sub(r'\bid="([^"]+)"', rf'id="{unique}-\1"', text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{unique}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{unique}-\1)", text)
    return text.replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)")
