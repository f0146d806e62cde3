"""Figures as SVG in the colours of the page, and timelines as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from ..records import Confusion, Curves, Examples, Figure, Gates, LevelCurves, Timeline
from .style import (
    ALARM_COLOUR,
    FAINT,
    MOST_POINTS,
    PALETTE,
    Drawing,
    as_drawing,
    colours_of,
    new_panel,
    page_style,
    plot_lines,
    shorten,
)

MOST_SCORES = 6


def draw(figure: Figure) -> list[Drawing]:
    """Returns the drawings of a figure: one each, two for a timeline (scores and gate weights), none for examples."""
    match figure:
        case Confusion():
            return [_draw_confusion(figure)]
        case Gates():
            return [_draw_gates(figure)]
        case Curves():
            return [_draw_points(figure)]
        case LevelCurves():
            return [_draw_levels(figure)]
        case Examples():
            return []
        case Timeline():
            with page_style():
                drawings = []
                for title, series in _timeline_parts(figure):
                    canvas, axes = new_panel(title)
                    lines = {name: (figure.times, values) for name, values in series.items()}
                    plot_lines(axes, lines, share=True, others=list(figure.gates))
                    axes.set_xlabel("seconds")
                    _shade(axes, figure.marks)
                    marked = "".join(f"; {what} from {a:g} to {b:g} s" for what, (a, b) in figure.marks.items())
                    drawings.append(as_drawing(canvas, f"{title} over time: {', '.join(series)}{marked}"))
            return drawings


def _shade(axes: Axes, marks: Mapping[str, tuple[float, float]]) -> None:
    for what, (begin, end) in marks.items():
        axes.axvspan(begin, end, color=ALARM_COLOUR, alpha=0.15, linewidth=0)
        axes.text((begin + end) / 2, 1.0, shorten(what), ha="center", va="top", fontsize=8)


def draw_series(
    title: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], share: bool = False
) -> Drawing:
    """Draws a small panel of (steps, values) by name.

    - `share`: values are shares, drawn from 0 to 1.
    """
    with page_style():
        canvas, axes = new_panel(title)
        plot_lines(axes, series, share, legend=len(series) > 1)
        axes.set_xlabel("step")
        ends = [f"{name} ends at {_last(values):.3g}" for name, (_, values) in series.items()]
        return as_drawing(canvas, f"{title} over training steps: {', '.join(ends)}")


def draw_timeline(
    timeline: Timeline,
    target: Path,
    spans: Sequence[tuple[float, float]] = (),
    peaks: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Writes the timeline as a PNG on white, with scores by class above gate weights by modality.

    - `spans`: alarms (begin, end) in seconds, shaded.
    - `peaks`: highest scores by class, drawn as a pale band above the means.
    """
    with page_style("#20242b", "#d5d9e0"):
        canvas = Canvas(figsize=(9, 5), layout="constrained", facecolor="white")
        rows: Any = canvas.subplots(2, sharex=True)
        canvas.suptitle(shorten(timeline.title, 80), fontsize=11)
        for axes, (title, series) in zip(rows, _timeline_parts(timeline), strict=True):
            axes.set_title(title, loc="left")
            _shade(axes, timeline.marks)
            lines = {name: (timeline.times, values) for name, values in series.items()}
            plot_lines(axes, lines, share=True, beside=True, others=list(timeline.gates))
            for begin, end in spans:
                axes.axvspan(begin, end, color=ALARM_COLOUR, alpha=0.15, linewidth=0)
            colours = colours_of(list(series), list(timeline.gates))
            for colour, (name, values) in zip(colours, series.items(), strict=True):
                if peaks and name in peaks:
                    axes.fill_between(timeline.times, values, peaks[name], color=colour, alpha=0.25, linewidth=0)
        rows[1].set_xlabel("seconds")
        canvas.savefig(target, format="png", dpi=110)


def _timeline_parts(timeline: Timeline) -> list[tuple[str, dict[str, list[float]]]]:
    """Returns titles and series of both panels. With many classes, only those with the highest peaks are shown."""
    scores = timeline.scores
    title = "Class scores"
    if len(scores) > MOST_SCORES:
        best = sorted(scores, key=lambda name: -float(np.nanmax(np.array(scores[name] or [0], float))))
        title += f", the highest {MOST_SCORES} of {len(scores)}"
        scores = {name: scores[name] for name in best[:MOST_SCORES]}
    return [(title, scores), ("Gate weights", timeline.gates)]


def _draw_points(curves: Curves) -> Drawing:
    with page_style():
        canvas, axes = new_panel(curves.title, (3.6, 3.4))
        for colour, (name, points) in zip(colours_of(list(curves.series)), curves.series.items(), strict=True):
            kept = np.unique(np.linspace(0, max(len(points) - 1, 0), min(len(points), MOST_POINTS)).astype(int))
            values = np.array(points, float).reshape(-1, 2)[kept]
            axes.plot(*values.T, color=colour, linewidth=1.6, label=shorten(name))
        if curves.diagonal:
            axes.plot([0, 1], [0, 1], color=FAINT, linestyle=(0, (4, 3)), label="chance")
        everything = np.array([point for points in curves.series.values() for point in points], float)
        if not len(everything) or (np.nanmin(everything) >= 0 and np.nanmax(everything) <= 1):
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel=curves.x_label, ylabel=curves.y_label)
        axes.legend(loc="best")
        alt = f"{curves.title}: {curves.y_label} against {curves.x_label} of {', '.join(curves.series)}"
        return as_drawing(canvas, alt)


def _draw_levels(curves: LevelCurves) -> Drawing:
    """Draws values over levels, with further values below on the same axis."""
    with page_style():
        canvas = Canvas(figsize=(3.9, 3.7 if curves.below else 2.6), layout="constrained")
        canvas.suptitle(shorten(curves.title, 44), x=0.01, ha="left", fontsize=10, fontweight="bold")
        ratios = [3, 2] if curves.below else [1]
        panels: Any = canvas.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)
        places = np.arange(len(curves.levels))
        colours = colours_of([*curves.series, *curves.below])
        for axes, label, series in zip(
            panels[:, 0], (curves.y_label, "gate weight"), (curves.series, curves.below), strict=False
        ):
            for name, values in series.items():
                colour = colours.pop(0)
                if name in curves.bands and series is curves.series:
                    low, high = np.array(curves.bands[name], float).T
                    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
                heights = np.array(values, float)
                axes.plot(places, heights, color=colour, linewidth=1.6, marker="o", markersize=3, label=shorten(name))
            axes.set(ylim=(-0.03, 1.03), ylabel=label)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        panels[-1, 0].set_xticks(places, [shorten(level, 8) for level in curves.levels])
        panels[-1, 0].set_xlabel(curves.x_label)
        ends = [
            f"{name} from {values[0]:.2f} to {values[-1]:.2f}"
            for name, values in curves.series.items()
            if _finite(values[0], values[-1])
        ]
        return as_drawing(canvas, f"{curves.title}, {curves.y_label} over {curves.x_label}: {', '.join(ends)}")


def _finite(*values: float | None) -> bool:
    return all(value is not None and np.isfinite(value) for value in values)


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
    left, below = (max((len(shorten(name)) for name in names), default=0) * 0.075 for names in (rows[0], columns[0]))
    # In inches. Columns fit their names if these are few and short. Otherwise the names are rotated.
    cell = 0.24 if crowded else max(0.45, min(below + 0.1, 2.0 / max(width, 1)))
    turned = below > cell
    with page_style():
        title = shorten(title, 60)
        wide = max(width * cell + left + 0.6, len(title) * 0.085 + 0.2)
        high = height * (0.24 if crowded else 0.3) + (below if turned else 0.15) + 0.8
        canvas = Canvas(figsize=(wide, high), layout="constrained")
        canvas.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        axes = canvas.add_subplot()
        # The opacity grows with the share, so the colour suits any page background.
        picture = np.empty((height, width, 4))
        picture[..., :3] = to_rgb(PALETTE[0])
        picture[..., 3] = 0.85 * np.clip(shares, 0, 1)
        axes.imshow(picture, interpolation="none", aspect="auto")
        axes.set_xticks(range(width), [shorten(name) for name in columns[0]], rotation=90 if turned else 0)
        axes.set_yticks(range(height), [shorten(name) for name in rows[0]])
        axes.set(xlabel=columns[1], ylabel=rows[1])
        axes.tick_params(length=0)
        axes.grid(False)
        for row, line in enumerate(texts):
            for column, text in enumerate(line):
                if text:
                    axes.text(column, row, text, ha="center", va="center", fontsize=6 if crowded else 8)
        return as_drawing(canvas, alt)


def _last(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return known[-1] if known else float("nan")
