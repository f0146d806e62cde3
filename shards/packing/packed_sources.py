"""Sizes and times of the files that shards were packed from, to notice when one has changed since."""

from pathlib import Path

from ..index.table import Index, Stamps
from .sources import Source, stamp


def stamps_of(sources: list[Source]) -> Stamps:
    """Returns the stamps of the files as they are now. A recording that cannot be packed has none."""
    return {source.key: [] if source.problem else stamp(source)[0] for source in sources}


def changed_files(index: Index, sources: list[Source]) -> list[Path]:
    """Returns the files that are not those that the shards of `index` were packed from.

    Shards of older versions do not know their files: then the list is empty.
    """
    if not index.stamps:
        return []
    changed = []
    for source, (key, now) in zip(sources, stamps_of(sources).items(), strict=True):
        then = {kind: facts for kind, *facts in index.stamps.get(key, [])}
        changed += [source.files[str(kind)] for kind, *facts in now if then.get(kind) != facts]
        if not now and then:
            changed.append(source.path)
    return changed
