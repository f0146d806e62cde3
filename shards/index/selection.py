"""Which clips of an index are used: those that have certain modalities or labels, and a fixed share of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import RequestError
from ..modality import modality
from .table import Index


def with_modalities(index: Index, present: Sequence[str]) -> Index:
    """The clips that have every modality of `present`: sounding clips only, say.

    Raises `RequestError` for an unknown modality and where no clip is left.
    """
    suffixes = [modality(name).suffix for name in present]
    kept = tuple(sample for sample in index.samples if all(suffix in sample.members for suffix in suffixes))
    if not kept:
        raise RequestError(f"no clip in '{index.folder}' has {' and '.join(present)}")
    return replace(index, samples=kept)


def with_labels(index: Index, column: str, values: Sequence[str]) -> Index:
    """The clips whose label `column` is one of `values`; `RequestError` for one that never occurs."""
    return index.where(**{column: values})


def with_columns(index: Index, where: Mapping[str, Sequence[str]]) -> Index:
    """The clips that have in every column of `where` one of its values.

    Raises `RequestError` for a column or a value that no clip has, and where no clip is left.
    """
    kept = index.where(**where)
    if not kept.samples:
        wanted = " and ".join(f"{column} {' or '.join(values)}" for column, values in where.items())
        raise RequestError(f"no clip in '{index.folder}' has {wanted}")
    return kept


def fraction_of(index: Index, fraction: float, seed: int = 0) -> Index:
    """A share of the clips, at least one, in the index's order.

    A clip's place in the draw is a hash of seed and key: smaller shares lie inside larger ones, and a clip keeps its
    place when others come or go. Raises `RequestError` for a share outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise RequestError(f"a fraction of {fraction} of the clips: give more than 0 and at most 1")
    drawn = sorted(index.samples, key=lambda s: hashlib.sha256(f"{seed}/{s.key}".encode()).digest())
    return index.keep(sample.key for sample in drawn[: max(round(fraction * len(drawn)), 1)])
