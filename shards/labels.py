"""Clips of several classes at once: label columns with several values, and columns of 0 and 1 joined into one."""

from collections.abc import Sequence
from dataclasses import replace

from .errors import RequestError
from .index import Index

SEPARATOR = "|"


def label_values(text: str) -> list[str]:
    """The classes that `fight|shouting` names; none for an unlabelled clip, and none for `|`, a clip of no class."""
    return [value.strip() for value in text.split(SEPARATOR) if value.strip()]


def join_columns(index: Index, columns: Sequence[str]) -> tuple[Index, str]:
    """The index with one more column, that names those of `columns` which hold 1; and that column's name.

    A clip of which one of them is empty is unlabelled. Raises `RequestError` for a column that is not there, and for
    a value that is neither 0 nor 1.
    """
    name = "+".join(columns)
    samples = list(index.samples)
    held = {column: index.column(column) for column in columns}
    for column, values in held.items():
        wrong = next((value for value in values if value not in ("", "0", "1")), None)
        if wrong is not None:
            raise RequestError(f"column '{column}' holds '{wrong}': columns of a class of their own hold 0 or 1")
    for number, sample in enumerate(samples):
        flags = [held[column][number] for column in columns]
        named = [column for column, flag in zip(columns, flags, strict=True) if flag == "1"]
        text = "" if "" in flags else SEPARATOR.join(named) or SEPARATOR
        samples[number] = replace(sample, labels=sample.labels | {name: text})
    return replace(index, samples=tuple(samples)), name
