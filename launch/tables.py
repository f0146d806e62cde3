"""What a verb says at its end: a table for people, and the same figures as JSON."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..shards.errors import RequestError


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table on standard output; columns that hold only numbers are set to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell_text(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    # A pipe or a log has no width of its own; the guess of 80 columns would break rows.
    console.width = console.width if console.is_terminal else 120
    console.print(title, style="bold")
    console.print(table)


def print_rejected(path: Path, limit: int = 20) -> None:
    """A table of the recordings that are listed in `path` as unusable, if there are any."""
    from ..shards.rejected import read_rejected

    rejected = read_rejected(path)
    if rejected:
        more = f", the first {limit}" if len(rejected) > limit else ""
        title = f"{len(rejected)} recordings rejected, listed in {path}{more}"
        print_table(title, ("file", "reason"), [(item.file, item.reason) for item in rejected[:limit]])


def write_json(path: Path | None, content: Any) -> None:
    """Writes `content` to `path`, if one is given; numbers that are not finite become null.

    Raises `RequestError` where the file cannot be written.
    """
    if path is None:
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(_finite(content), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise RequestError(
            f"cannot write '{path}' ({error.strerror}): give --json a file in a folder that is there"
        ) from error


def cell_text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
