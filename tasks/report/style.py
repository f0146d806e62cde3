"""Shared style of figures: colours, layout, and SVG that follows the colours of the page."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

PALETTE = ("#3f86cf", "#e08a1e", "#2f9e6e", "#b06ccb", "#d9536b", "#2aa5b3", "#8a8f2a", "#8d7563")
_MODALITIES = ("rgb", "flow", "audio", "depth", "inertial", "depth_flow")
MODALITY_COLOURS: dict[str, str] = dict(zip(_MODALITIES, PALETTE, strict=False))
ALARM_COLOUR = "#e22834"
# Placeholder colours, replaced in the SVG so that a figure suits both light and dark pages.
INK, FAINT = "#010203", "#040506"
MOST_POINTS = 500
_DOTS = 72  # user units per inch in a matplotlib SVG


@dataclass(frozen=True)
class Drawing:
    """A figure as inline SVG."""

    svg: str
    """The `<svg>` element."""
    alt: str
    """Accessible name."""
    width: int
    """Width in user units."""
    canvas: Canvas = field(repr=False, compare=False)
    """The matplotlib figure."""


def new_panel(title: str, size: tuple[float, float] = (4.4, 2.5)) -> tuple[Canvas, Axes]:
    """Returns a canvas of `size` inches and its axes, with a title."""
    canvas = Canvas(figsize=size, layout="constrained")
    axes = canvas.add_subplot()
    axes.set_title(shorten(title, 48), loc="left")
    return canvas, axes


def plot_lines(
    axes: Axes,
    series: Mapping[str, tuple[Any, Any]],
    share: bool,
    legend: bool = True,
    beside: bool = False,
    others: Sequence[str] = (),
) -> None:
    """Draws lines of (x, y) by name.

    - `share`: fix the y axis to 0 to 1.
    - `beside`: put the legend beside the axes instead of below.
    - `others`: names in another panel of the same figure, whose colours are avoided.
    """
    for number, (colour, name) in enumerate(zip(colours_of(list(series), others), series, strict=True)):
        x, y = series[name]
        x, y = np.array(x, float), np.array(y, float)
        marker = "o" if len(x) < 2 else None
        dashes = "-" if number < len(PALETTE) else "--"
        axes.plot(x, y, dashes, color=colour, linewidth=1.6, marker=marker, label=shorten(name))
    if share:
        axes.set_ylim(-0.03, 1.03)
    if not legend or not series:
        return
    if beside:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        columns = 4 if max(len(shorten(name)) for name in series) < 9 else 2
        axes.get_figure(root=True).legend(loc="outside lower left", ncols=columns)  # pyright: ignore


def colours_of(names: Sequence[str], others: Sequence[str] = ()) -> list[str]:
    """Returns a colour per name. Modalities have fixed colours.

    Other names take colours that no modality here uses.
    """
    taken = {MODALITY_COLOURS.get(name) for name in (*names, *others)}
    free = [colour for colour in PALETTE if colour not in taken]
    unnamed = [name for name in names if name not in MODALITY_COLOURS]
    given = MODALITY_COLOURS | {name: free[number % len(free)] for number, name in enumerate(unnamed)}
    return [given[name] for name in names]


def shorten(text: str, most: int = 22) -> str:
    """Returns the text on one line, cut to `most` characters.

    >>> shorten("a long name", 7)
    'a long…'
    """
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def page_style(ink: str = INK, faint: str = FAINT) -> AbstractContextManager[None]:
    """Returns a context in which matplotlib draws text in `ink` and frames in `faint`."""
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


def as_drawing(canvas: Canvas, alt: str) -> Drawing:
    """Returns the canvas as SVG in the colours of the page. `alt` is its accessible name."""
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # HTML needs no namespaces, ids must be unique in the page, and the page sets the size.
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text, count=2)
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace("xlink:href", "href")
    text = text.replace(f": {INK}", ": currentColor").replace(f": {FAINT}", ": var(--line)")
    width = round(canvas.get_figwidth() * _DOTS)
    opening = f'<svg role="img" aria-label="{html.escape(alt)}"'
    text = re.sub(r'<svg( width="[^"]*"| height="[^"]*")*', lambda _: opening, text, count=1)
    return Drawing(text, alt, width, canvas)


def as_pixels(canvas: Canvas, dots: int = 144) -> NDArray[np.uint8]:
    """Returns the canvas on white as (height, width, 3), with `dots` per inch."""
    canvas.set_facecolor("white")
    canvas.set_dpi(dots)
    for axes in canvas.axes:
        for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
            line.set_color("#d5d9e0")
    agg = FigureCanvasAgg(canvas)
    agg.draw()
    return np.asarray(agg.buffer_rgba())[..., :3].copy()


def thin(values: NDArray[np.floating], points: int = MOST_POINTS) -> NDArray[np.floating]:
    """Returns at most `points` means of neighbouring values (n,), ignoring NaN.

    NaN if a neighbourhood has no value.
    """
    parts = np.array_split(values, min(points, max(len(values), 1)))
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])
