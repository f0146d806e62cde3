"""Pictures of results: SVG that takes the colours of the page it stands in, and a PNG of a timeline."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from .results import Confusion, Curves, Figure, Gates, Timeline

PALETTE = ("#3f86cf", "#e08a1e", "#2f9e6e", "#b06ccb", "#d9536b", "#2aa5b3", "#8a8f2a", "#8d7563")
MODALITY_COLOURS: dict[str, str] = dict(zip(("rgb", "flow", "audio", "depth", "inertial"), PALETTE, strict=False))
ALARM_COLOUR = "#e22834"
MOST_SCORES = 6
MOST_POINTS = 500
# Drawn in these and replaced in the SVG, so that one picture suits the light page and the dark one.
_INK, _FAINT = "#010203", "#040506"
_DOTS = 72  # user units of a matplotlib SVG per inch


@dataclass(frozen=True)
class Drawing:
    """An inline `<svg>`, `width` user units wide, whose accessible name is `alt`."""

    svg: str
    alt: str
    width: int


def draw(figure: Figure) -> list[Drawing]:
    """One picture of a confusion, of curves and of gates; two of a timeline, scores above gates."""
    match figure:
        case Confusion():
            return [_draw_confusion(figure)]
        case Gates():
            return [_draw_gates(figure)]
        case Curves():
            return [_draw_points(figure)]
        case Timeline():
            with _style():
                drawings = []
                for title, series in _timeline_parts(figure):
                    canvas, axes = _panel(title)
                    _lines(axes, {name: (figure.times, values) for name, values in series.items()}, share=True)
                    axes.set_xlabel("seconds")
                    drawings.append(_drawing(canvas, f"{title} over time: {', '.join(series)}"))
            return drawings


def draw_series(
    title: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], share: bool = False
) -> Drawing:
    """A small panel of (steps, values) by name; `share`: the values are shares of one, drawn from 0 to 1."""
    with _style():
        canvas, axes = _panel(title)
        _lines(axes, series, share, legend=len(series) > 1)
        axes.set_xlabel("step")
        ends = [f"{name} ends at {_last(values):.3g}" for name, (_, values) in series.items()]
        return _drawing(canvas, f"{title} over training steps: {', '.join(ends)}")


def draw_timeline(
    timeline: Timeline,
    target: Path,
    spans: Sequence[tuple[float, float]] = (),
    peaks: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """The timeline as a PNG on white: scores by class above gate weights by modality.

    `spans`: alarms from one second to another, shaded; `peaks`: the highest scores by class where the timeline has
    means, as a pale band above these.
    """
    with _style("#20242b", "#d5d9e0"):
        canvas = Canvas(figsize=(9, 5), layout="constrained", facecolor="white")
        rows: Any = canvas.subplots(2, sharex=True)
        canvas.suptitle(_short(timeline.title, 80), fontsize=11)
        for axes, (title, series) in zip(rows, _timeline_parts(timeline), strict=True):
            axes.set_title(title, loc="left")
            _lines(axes, {name: (timeline.times, values) for name, values in series.items()}, share=True, beside=True)
            for begin, end in spans:
                axes.axvspan(begin, end, color=ALARM_COLOUR, alpha=0.15, linewidth=0)
            for colour, (name, values) in zip(_colours(list(series)), series.items(), strict=True):
                if peaks and name in peaks:
                    axes.fill_between(timeline.times, values, peaks[name], color=colour, alpha=0.25, linewidth=0)
        rows[1].set_xlabel("seconds")
        canvas.savefig(target, format="png", dpi=110)


def thin(values: NDArray[np.floating], points: int = MOST_POINTS) -> NDArray[np.floating]:
    """At most `points` means of neighbouring values (n,), leaving out NaN; NaN where a neighbourhood has no value."""
    parts = np.array_split(values, min(points, max(len(values), 1)))
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])


def _timeline_parts(timeline: Timeline) -> list[tuple[str, dict[str, list[float]]]]:
    """Of many classes only those that ever score highest: more lines cannot be told apart."""
    scores = timeline.scores
    title = "Class scores"
    if len(scores) > MOST_SCORES:
        best = sorted(scores, key=lambda name: -float(np.nanmax(np.array(scores[name] or [0], float))))
        title += f", the highest {MOST_SCORES} of {len(scores)}"
        scores = {name: scores[name] for name in best[:MOST_SCORES]}
    return [(title, scores), ("Gate weights", timeline.gates)]


def _draw_points(curves: Curves) -> Drawing:
    with _style():
        canvas, axes = _panel(curves.title, (3.6, 3.4))
        for colour, (name, points) in zip(_colours(list(curves.series)), curves.series.items(), strict=True):
            kept = np.unique(np.linspace(0, max(len(points) - 1, 0), min(len(points), MOST_POINTS)).astype(int))
            values = np.array(points, float).reshape(-1, 2)[kept]
            axes.plot(*values.T, color=colour, linewidth=1.6, label=_short(name))
        if curves.diagonal:
            axes.plot([0, 1], [0, 1], color=_FAINT, linestyle=(0, (4, 3)), label="chance")
        everything = np.array([point for points in curves.series.values() for point in points], float)
        if not len(everything) or (np.nanmin(everything) >= 0 and np.nanmax(everything) <= 1):
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel=curves.x_label, ylabel=curves.y_label)
        axes.legend(loc="best")
        alt = f"{curves.title}: {curves.y_label} against {curves.x_label} of {', '.join(curves.series)}"
        return _drawing(canvas, alt)


def _draw_confusion(confusion: Confusion) -> Drawing:
    counts = np.array(confusion.matrix, float).reshape(len(confusion.classes), -1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = [[f"{count:.0f}" if count else "" for count in row] for row in counts]
    right = counts.trace() / max(counts.sum(), 1)
    return _draw_cells(
        confusion.title,
        f"{confusion.title}: {right:.1%} of {counts.sum():.0f} clips on the diagonal",
        (shares, cells),
        (confusion.classes, "truth"),
        (confusion.classes, "prediction"),
    )


def _draw_gates(gates: Gates) -> Drawing:
    weights = np.array(gates.weights, float).reshape(len(gates.groups), -1)
    cells = [["" if np.isnan(weight) else f"{weight:.2f}" for weight in row] for row in weights]
    most = [
        f"{group} most on {gates.modalities[int(row.argmax())]} ({row.max():.2f})"
        for group, row in zip(gates.groups, np.nan_to_num(weights), strict=True)
    ]
    rows, columns = (gates.groups, ""), (gates.modalities, "")
    return _draw_cells(
        gates.title, f"{gates.title}: {', '.join(most)}", (np.nan_to_num(weights), cells), rows, columns
    )


def _draw_cells(
    title: str,
    alt: str,
    content: tuple[NDArray[np.floating], list[list[str]]],
    rows: tuple[Sequence[str], str],
    columns: tuple[Sequence[str], str],
) -> Drawing:
    """A heat map of shares of one, each cell with its text."""
    shares, texts = content
    height, width = shares.shape
    crowded = width > 12
    left, below = (max((len(_short(name)) for name in names), default=0) * 0.075 for names in (rows[0], columns[0]))
    # Inches: columns wide enough for their names if these are few and short, else the names are turned.
    cell = 0.24 if crowded else max(0.45, min(below + 0.1, 2.0 / max(width, 1)))
    turned = below > cell
    with _style():
        title = _short(title, 60)
        wide = max(width * cell + left + 0.6, len(title) * 0.085 + 0.2)
        high = height * (0.24 if crowded else 0.3) + (below if turned else 0.15) + 0.8
        canvas = Canvas(figsize=(wide, high), layout="constrained")
        canvas.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        axes = canvas.add_subplot()
        # A colour that thickens with the share, on whatever the page is.
        picture = np.empty((height, width, 4))
        picture[..., :3] = to_rgb(PALETTE[0])
        picture[..., 3] = 0.85 * np.clip(shares, 0, 1)
        axes.imshow(picture, interpolation="none", aspect="auto")
        axes.set_xticks(range(width), [_short(name) for name in columns[0]], rotation=90 if turned else 0)
        axes.set_yticks(range(height), [_short(name) for name in rows[0]])
        axes.set(xlabel=columns[1], ylabel=rows[1])
        axes.tick_params(length=0)
        axes.grid(False)
        for row, line in enumerate(texts):
            for column, text in enumerate(line):
                if text:
                    axes.text(column, row, text, ha="center", va="center", fontsize=6 if crowded else 8)
        return _drawing(canvas, alt)


def _panel(title: str, size: tuple[float, float] = (4.4, 2.5)) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=size, layout="constrained")
    axes = canvas.add_subplot()
    axes.set_title(_short(title, 48), loc="left")
    return canvas, axes


def _lines(
    axes: Axes, series: Mapping[str, tuple[Any, Any]], share: bool, legend: bool = True, beside: bool = False
) -> None:
    for number, (colour, name) in enumerate(zip(_colours(list(series)), series, strict=True)):
        x, y = series[name]
        x, y = np.array(x, float), np.array(y, float)
        marker = "o" if len(x) < 2 else None
        dashes = "-" if number < len(PALETTE) else "--"
        axes.plot(x, y, dashes, color=colour, linewidth=1.6, marker=marker, label=_short(name))
    if share:
        axes.set_ylim(-0.03, 1.03)
    if not legend or not series:
        return
    if beside:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        columns = 4 if max(len(_short(name)) for name in series) < 9 else 2
        axes.get_figure(root=True).legend(loc="outside lower left", ncols=columns)  # pyright: ignore


def _colours(names: Sequence[str]) -> list[str]:
    """A modality keeps its colour in every picture; other names take those that are left."""
    free = [colour for colour in PALETTE if colour not in {MODALITY_COLOURS.get(name) for name in names}]
    others = [name for name in names if name not in MODALITY_COLOURS]
    given = MODALITY_COLOURS | {name: free[number % len(free)] for number, name in enumerate(others)}
    return [given[name] for name in names]


def _last(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return known[-1] if known else float("nan")


def _short(text: str, most: int = 22) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _style(ink: str = _INK, faint: str = _FAINT) -> AbstractContextManager[None]:
    style: dict[Any, Any] = {
        "text.parse_math": False,  # a class may be called $5
        "svg.fonttype": "none",
        "svg.hashsalt": "modalgate",
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.handlelength": 1.2,
        "legend.columnspacing": 1.0,
    }
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), ink)
    return mpl.rc_context(style | dict.fromkeys(("axes.edgecolor", "grid.color"), faint))


def _drawing(canvas: Canvas, alt: str) -> Drawing:
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # HTML knows the namespaces and wants an id only once; the page sets the size.
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text, count=2)
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace("xlink:href", "href")
    text = text.replace(f": {_INK}", ": currentColor").replace(f": {_FAINT}", ": var(--line)")
    width = round(canvas.get_figwidth() * _DOTS)
    opening = f'<svg role="img" aria-label="{html.escape(alt)}"'
    text = re.sub(r'<svg( width="[^"]*"| height="[^"]*")*', lambda _: opening, text, count=1)
    return Drawing(text, alt, width)
