"""Select clips of an index: by modality, by label, or a fixed fraction."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import RequestError
from ..modality import modality
from .table import Index


def with_modalities(index: Index, present: Sequence[str]) -> Index:
    """Keeps the clips that have every modality of `present`.

    Raises `RequestError` for an unknown modality and if no clip is left.
    """
    suffixes = [modality(name).suffix for name in present]
    kept = tuple(sample for sample in index.samples if all(suffix in sample.members for suffix in suffixes))
    if not kept:
        raise RequestError(f"no clip in '{index.folder}' has {' and '.join(present)}")
    return replace(index, samples=kept)


def with_labels(index: Index, column: str, values: Sequence[str]) -> Index:
    """Keeps the clips whose label `column` is one of `values`. Raises `RequestError` for an unknown value."""
    return index.where(**{column: values})


def with_columns(index: Index, where: Mapping[str, Sequence[str]]) -> Index:
    """Keeps the clips that have one of the given values in every column of `where`.

    Raises `RequestError` for a column or value that no clip has, and if no clip is left.
    """
    kept = index.where(**where)
    if not kept.samples:
        wanted = " and ".join(f"{column} {' or '.join(values)}" for column, values in where.items())
        raise RequestError(f"no clip in '{index.folder}' has {wanted}")
    return kept


def fraction_of(index: Index, fraction: float, seed: int = 0) -> Index:
    """Keeps a fraction of the clips, at least one, in the index's order.

    A clip's rank in the draw is a hash of seed and key. So a smaller fraction is a subset of a larger one, and adding
    or removing clips does not change the rank of others. Raises `RequestError` for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise RequestError(f"fraction {fraction} is out of range: give more than 0 and at most 1")
    drawn = sorted(index.samples, key=lambda s: hashlib.sha256(f"{seed}/{s.key}".encode()).digest())
    return index.keep(sample.key for sample in drawn[: max(round(fraction * len(drawn)), 1)])
