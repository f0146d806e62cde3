"""Read tables and lists that people write: CSV as spreadsheets save it, with every mistake named by its line."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import RequestError

# Separators that spreadsheets write in place of a comma.
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


def read_text(path: Path, what: str) -> str:
    """Returns the text of a UTF-8 file, without a byte order mark.

    `what`: what the file is, for messages. Raises `RequestError` for an unreadable file and for another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read the {what} '{path}' ({error.strerror})") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise RequestError(f"{what} '{path}' is UTF-16 and not UTF-8 text: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(
            f"{what} '{path}' is not UTF-8 text (byte {data[error.start]:#04x} in line {line}): save it as UTF-8"
        ) from error


def read_table(path: Path, what: str, known: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Returns (line, value by column) for each row of a CSV table with a header. Empty rows are skipped.

    Blanks around names and values are removed, and so are columns without a name and values.

    - `what`: what the file is, for messages.
    - `known`: column names with a meaning. Another spelling of one, such as `Label`, is an error.

    Raises `RequestError`, with the line, for a table that is not UTF-8, has another separator than commas, an open
    quote, a value with a line break, another number of fields than the header, a column without a name, or one that
    occurs twice.
    """
    rows = _rows(path, what)
    if not rows:
        raise RequestError(f"{what} '{path}' is empty")
    (_, header), *rest = rows
    known = list(known)
    _check_header(path, what, header, known)
    # A spreadsheet keeps columns that were emptied.
    kept = [
        place for place, name in enumerate(header) if name or any(place < len(row) and row[place] for _, row in rest)
    ]
    for line, row in rest:
        if len(row) != len(header):
            raise RequestError(
                f"{what} '{path}', line {line}: it does not have as many fields as the header ({len(row)} and "
                f"{len(header)}): put a value that holds a comma in double quotes"
            )
    unnamed = next((place for place in kept if not header[place]), None)
    if unnamed is not None:
        raise RequestError(f"{what} '{path}': column {unnamed + 1} has values and no name: give it a name")
    return [(line, {header[place]: row[place] for place in kept}) for line, row in rest]


def backslash_hint(names: Iterable[str]) -> str:
    """Returns a hint for paths that were written on Windows; empty if no name has a backslash."""
    return ": write paths with / and not with \\" if any("\\" in name for name in names) else ""


def _rows(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """Returns the rows that are not empty, each with the line on which it begins."""
    reader = csv.reader(io.StringIO(read_text(path, what), newline=""), strict=True)
    rows, line = [], 1
    try:
        for row in reader:
            if any("\n" in value or "\r" in value for value in row):
                raise RequestError(
                    f"{what} '{path}', line {line}: a value holds a line break: close the quote that opens there"
                )
            if any(value.strip() for value in row):
                rows.append((line, [value.strip() for value in row]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise RequestError(
            f"{what} '{path}', line {line}: not a CSV row ({error}): close the quote that opens there"
        ) from error
    return rows


def _check_header(path: Path, what: str, header: list[str], known: list[str]) -> None:
    found = [mark for mark in OTHER_SEPARATORS if len(header) == 1 and mark in header[0]]
    if found:
        raise RequestError(
            f"{what} '{path}' separates its columns by {OTHER_SEPARATORS[found[0]]}: save it with commas"
        )
    twice = next((name for name, count in Counter(filter(None, header)).items() if count > 1), None)
    if twice is not None:
        raise RequestError(f"{what} '{path}' has two columns '{twice}': rename or remove one")
    meant = {name.casefold(): name for name in known}
    for name in header:
        right = meant.get(name.casefold(), name)
        if right != name:
            raise RequestError(f"{what} '{path}' has a column '{name}': write '{right}', or rename it")
