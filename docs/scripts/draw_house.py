"""Draws docs/house.svg from the imports: rooms as floors, inner rooms as boxes, an arrow to what a box imports.

    .venv/bin/python docs/scripts/draw_house.py

Within a floor a box stands right of everything it imports. Arrows that follow from others are omitted (transitive
reduction). The colours follow the reader's light or dark mode.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "docs" / "house.svg"
FLOORS = ("launch", "tasks", "ssl", "fusion", "shards")
BOX_WIDTH, BOX_HEIGHT, PITCH, LINE, MARGIN, HEAD = 92, 32, 108, 44, 14, 34

_STYLE = """
.house { fill: #ffffff; }
.floor { fill: #f2f4f7; }
.inner { fill: #ffffff; stroke: #3558a2; stroke-width: 1.4; }
.file { fill: none; stroke: #8a94a6; stroke-dasharray: 3 2; }
text { font: 12px system-ui, sans-serif; fill: #1c2430; }
.room { font-weight: 600; font-size: 15px; }
.small { font-size: 10px; fill: #566074; }
.edge { fill: none; stroke: #8593ad; stroke-width: 1.2; }
.tip { fill: #8593ad; }
@media (prefers-color-scheme: dark) {
  .house { fill: #12161d; }
  .floor { fill: #1b212b; }
  .inner { fill: #242c39; stroke: #86a7ee; }
  .file { stroke: #76819a; }
  text { fill: #e6eaf2; }
  .small { fill: #a2adc0; }
  .edge { stroke: #6f7f9e; }
  .tip { fill: #6f7f9e; }
}
"""
_PURPOSE = {
    "launch": "command line, configs, the training loop",
    "tasks": "probes, fine-tuning, evaluation, prediction, the report",
    "ssl": "pretext tasks and the views that they need",
    "fusion": "encoders, fusion mechanisms, the exported bundle",
    "shards": "media in, clips out",
}


def place_of(parts: tuple[str, ...], room: str) -> str:
    """The innermost folder of a name in `room`, or the file of the room: `finetuning/balance` or `errors`."""
    depth = next((n for n in range(len(parts), 0, -1) if (ROOT / room).joinpath(*parts[:n]).is_dir()), 1)
    return "/".join(parts[:depth])


def imported_places(path: Path, room: str) -> Iterator[str]:
    """Inner rooms and files of `room` that the module at `path` imports by relative imports."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            for alias in node.names:
                parts = [part for part in (*base, alias.name) if part]
                if len(parts) > 1 and parts[0] == room:
                    yield place_of(tuple(parts[1:]), room)


def room_graph(room: str) -> dict[str, set[str]]:
    """By inner room or file of `room`: the others of the same room that it imports, without those that follow."""
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / room).rglob("*.py")):
        place = place_of(path.relative_to(ROOT / room).with_suffix("").parts, room)
        if place != "__init__":
            graph.setdefault(place, set()).update(imported_places(path, room))
    graph = {place: {target for target in targets if target in graph} - {place} for place, targets in graph.items()}
    return {
        place: {
            target for target in targets if not any(target in reach(graph, other) for other in targets - {target})
        }
        for place, targets in graph.items()
    }


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """Everything that `start` imports, directly or through others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph[waiting.pop()] - found:
            found.add(target)
            waiting.append(target)
    return found


def columns(graph: dict[str, set[str]]) -> list[list[str]]:
    """The places by column: right of all they import, and as near as possible to what imports them."""

    @cache
    def depth(place: str) -> int:
        return 1 + max((depth(target) for target in graph[place]), default=-1)

    @cache
    def column(place: str) -> int:
        importers = [other for other, targets in graph.items() if place in targets]
        return min((column(other) for other in importers), default=depth(place) + 1) - 1

    found: list[list[str]] = [[] for _ in range(1 + max(map(depth, graph)))]
    for place in sorted(graph):
        found[column(place)].append(place)
    return found


def files_in(room: str, place: str) -> int:
    """Modules of an inner room, without those of folders inside it; 0 for a file."""
    folder = ROOT / room / place
    return sum(path.name != "__init__.py" for path in folder.glob("*.py")) if folder.is_dir() else 0


def arrow(start: tuple[float, float], end: tuple[float, float], span: int) -> str:
    """A curve from the left edge of a box to the right edge of one `span` columns to its left."""
    (x1, y1), (x2, y2) = start, (end[0] + 6, end[1])
    # A longer arrow rises over the boxes between, and comes down in the gap before its target.
    lift, near, far = (0, (x1 - x2) / 2, (x1 - x2) / 2) if span < 2 else (18 * span, 30, 10)
    curve = f"M{x1:g} {y1:g} C{x1 - near:g} {y1 - lift:g} {x2 + far:g} {y2 - lift:g} {x2:g} {y2:g}"
    tip = f"M{end[0]:g} {end[1]:g} l7 -3.5 v7 z"
    return f'<path class="edge" d="{curve}"/><path class="tip" d="{tip}"/>'


def floor(room: str, graph: dict[str, set[str]], top: float, width: float) -> tuple[list[str], float]:
    """The parts of one floor whose upper edge is at `top`, and its height."""
    found = columns(graph)
    most = max(map(len, found))
    height = HEAD + most * LINE + 10
    spots: dict[str, tuple[int, float, float]] = {}
    for number, column in enumerate(found):
        offset = (most - len(column)) * LINE / 2
        for row, place in enumerate(column):
            spots[place] = (number, MARGIN * 2 + number * PITCH, top + HEAD + offset + row * LINE)
    parts = [
        f'<rect class="floor" x="{MARGIN}" y="{top:g}" width="{width - 2 * MARGIN:g}" height="{height:g}" rx="6"/>',
        f'<text class="room" x="{MARGIN * 2}" y="{top + 21:g}">{room}</text>',
        f'<text class="small" x="{MARGIN * 2 + 62}" y="{top + 21:g}">{_PURPOSE[room]}</text>',
    ]
    for place, targets in sorted(graph.items()):
        number, x, y = spots[place]
        for target in sorted(targets):
            other, left, upper = spots[target]
            half = BOX_HEIGHT / 2
            parts.append(arrow((x, y + half), (left + BOX_WIDTH, upper + half), number - other))
    for place, (_, x, y) in sorted(spots.items()):
        count = files_in(room, place)
        kind = "inner" if count else "file"
        centre = x + BOX_WIDTH / 2
        parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4"/>')
        first, sign, rest = place.partition("/" if "/" in place else "_") if len(place) > 12 else (place, "", "")
        lines = [(first + sign, ""), (rest, "")] if rest else [(place, "")]
        lines += [(f"{count} files", ' class="small"')] if count else []
        for row, (text, style) in enumerate(lines):
            height_of = y + (20 if len(lines) == 1 else 14 + 12 * row)
            parts.append(f'<text{style} x="{centre:g}" y="{height_of:g}" text-anchor="middle">{text}</text>')
    return parts, height


def house() -> str:
    """The whole picture as SVG."""
    graphs = {room: room_graph(room) for room in FLOORS}
    widest = max(len(columns(graph)) for graph in graphs.values())
    width = MARGIN * 4 + (widest - 1) * PITCH + BOX_WIDTH
    top, parts = 40.0, []
    for room, graph in graphs.items():
        drawn, height = floor(room, graph, top, width)
        parts += drawn
        top += height + 14
    note = "A room imports only from rooms below it. In a floor, an arrow points to what a box imports."
    legend = "Solid box: inner room. Dashed box: one file."
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" role="img" '
        'aria-label="The five rooms of modalgate, their inner rooms and imports">'
    )
    lines = [
        head,
        f"<style>{_STYLE}</style>",
        f'<rect class="house" width="{width:g}" height="{top:g}" rx="8"/>',
        f'<text x="{MARGIN * 2}" y="25">{note} {legend}</text>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(house(), encoding="utf-8")
