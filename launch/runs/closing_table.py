"""The end of a command: tables for people, and the same figures as JSON."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...shards.errors import RequestError
from ...shards.index.whole_file import write_whole
from ...tasks.records import Table


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, width: int | None = None
) -> None:
    """Prints a table on standard output; columns of numbers are right-aligned.

    `width`: largest width in characters; default: the terminal's, or 120 in a pipe or a log.
    """
    import rich.table
    from rich.console import Console

    table = rich.table.Table()
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    # A pipe or a log has no width; the guess of 80 columns would break rows.
    there = console.width if console.is_terminal else 120
    console.width = there if width is None else min(there, width)
    console.print(title, style="bold")
    console.print(table)


def print_rejected(path: Path, limit: int = 20) -> None:
    """Prints a table of the unusable recordings listed in `path`, if there are any."""
    from ...shards.packing.rejected import read_rejected

    rejected = read_rejected(path)
    if rejected:
        more = f", the first {limit}" if len(rejected) > limit else ""
        title = f"{len(rejected)} recording{'s' * (len(rejected) > 1)} rejected, listed in {path}{more}"
        print_table(title, ("file", "reason"), [(item.file, item.reason) for item in rejected[:limit]])


def write_json(path: Path | None, content: Any) -> None:
    """Writes `content` to `path` if one is given; numbers that are not finite become null.

    Raises `RequestError` if the file cannot be written.
    """
    if path is None:
        return
    try:
        write_whole(path, (json.dumps(_finite(content), indent=2) + "\n").encode())
    except OSError as error:
        raise RequestError(
            f"cannot write '{path}' ({error.strerror}): give --json a file in an existing folder"
        ) from error


def markdown_table(table: Table) -> str:
    """A table as Markdown, numbers to four digits."""
    return f"## {table.title}\n\n{markdown_rows(table.columns, table.rows)}\n\n{table.note}"


def markdown_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The lines of a Markdown table."""
    lines = [columns, ["---"] * len(columns), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(cell: object) -> str:
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
