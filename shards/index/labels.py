"""Label columns: the one that holds classes, several classes per clip, and 0/1 columns joined into one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..errors import RequestError
from .table import Index

SEPARATOR = "|"
LABEL = "label"
# These say which clips belong together, not what a clip shows.
NO_LABELS = ("split", "group")


def label_values(text: str) -> list[str]:
    """Returns the classes in a label. An unlabelled clip has none, and neither has a clip of no class, `|`.

    >>> label_values("fight|shouting")
    ['fight', 'shouting']
    """
    return [value.strip() for value in text.split(SEPARATOR) if value.strip()]


def label_column(index: Index, asked: str = LABEL) -> str:
    """Returns `asked`. If that is `label` and there is no such column, returns the only column that can hold classes.

    A column can hold classes if it has at least two values, and on average at least two clips per value. Raises
    `RequestError` if the column does not exist, with the nearest name or the columns to choose from.
    """
    if asked in index.columns or asked != LABEL:
        index.column(asked)
        return asked
    known = label_candidates(index)
    if len(known) == 1:
        return known[0]
    if known:
        raise RequestError(
            f"'{index.folder}' has no column '{LABEL}': choose one of {', '.join(known)} (--label {known[0]}, or "
            f"data.label={known[0]})"
        )
    columns = f"its columns are {', '.join(index.columns)}" if index.columns else "its clips have no labels"
    raise RequestError(
        f"'{index.folder}' has no column of classes ({columns}): put a column '{LABEL}' in labels.csv and pack again"
    )


def label_candidates(index: Index) -> list[str]:
    """Returns the columns that can hold classes, `label` first."""
    known = [name for name in index.columns if name not in NO_LABELS and _holds_classes(index.column(name))]
    return sorted(known, key=lambda name: name != LABEL)


def _holds_classes(values: Sequence[str]) -> bool:
    counts = Counter(value for value in values if value)
    return 2 <= len(counts) <= counts.total() / 2


def join_columns(index: Index, columns: Sequence[str]) -> tuple[Index, str]:
    """Returns the index with an additional column that lists those of `columns` that hold 1, and that column's name.

    A clip with an empty value in one of them is unlabelled. Raises `RequestError` for a missing column, and for a
    value that is not 0 or 1.
    """
    name = "+".join(columns)
    samples = list(index.samples)
    held = {column: index.column(column) for column in columns}
    for column, values in held.items():
        wrong = next((value for value in values if value not in ("", "0", "1")), None)
        if wrong is not None:
            raise RequestError(f"column '{column}' holds '{wrong}': a column for one class must hold 0 or 1")
    for number, sample in enumerate(samples):
        flags = [held[column][number] for column in columns]
        named = [column for column, flag in zip(columns, flags, strict=True) if flag == "1"]
        text = "" if "" in flags else SEPARATOR.join(named) or SEPARATOR
        samples[number] = replace(sample, labels=sample.labels | {name: text})
    return replace(index, samples=tuple(samples)), name
