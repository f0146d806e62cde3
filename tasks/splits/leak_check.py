"""Warnings about near-duplicate clips on both sides of a split, before any training."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...shards.clips.duplicates import LIMIT, MOTION_BITS, PICTURE_BITS, WORDS, NearPair, hash_clip, near_pairs
from ...shards.index.location import FolderReader
from ...shards.index.table import Index
from ...shards.index.whole_file import whole_file
from ...ssl.gather import rank
from ..features.across_processes import from_first, share
from .split_plan import warn
from .splits import Split, groups_of

FILE = "frame-hashes.safetensors"
BITS = PICTURE_BITS + MOTION_BITS
SHOWN = 3


def clip_hashes(
    index: Index, folder: Path | None = None, workers: int = 1, progress: Callable[[int], None] | None = None
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Returns hashes (n, 9) of the clips, and which clips (n,) have a hash.

    Hashes stored in `folder` are reused. They are keyed by shard content, so they hold for other shard sets too.
    Several processes share the work.

    - `workers`: number of threads.
    - `progress(clips)`: called with the number of newly finished clips.
    """
    contents = {shard.name: shard.sha256 for shard in index.shards}
    names = [f"{contents[sample.shard]} {sample.key}" for sample in index.samples]
    kept = from_first(lambda: _read(folder))
    missing = [number for number, name in enumerate(names) if name not in kept]
    if progress is not None:
        progress(len(names) - len(missing))

    def make(numbers: Sequence[int]) -> dict[int, NDArray[np.uint64]]:
        def one(number: int) -> NDArray[np.uint64]:
            found = hash_clip(files, index, index.samples[number])
            if progress is not None:
                progress(1)
            # A hash never has its first bit set, so all ones mark a clip without a hash.
            return np.full(WORDS, ~np.uint64(0)) if found is None else found

        with FolderReader(index.folder) as files, ThreadPoolExecutor(max(workers, 1)) as pool:
            return dict(zip(numbers, pool.map(one, numbers), strict=True))

    made = {names[number]: value for number, value in share(missing, make).items()}
    if made and folder is not None and rank() == 0:
        _write(folder, kept | made)
    hashes = np.stack([(kept | made)[name] for name in names])
    return hashes, ~(hashes == ~np.uint64(0)).all(axis=1)


def duplicates(
    index: Index, hashes: NDArray[np.uint64], there: NDArray[np.bool_], group: str = "group", limit: float = LIMIT
) -> list[NearPair]:
    """Returns pairs of near-duplicate clips, nearest first.

    Pairs within one `group` are omitted: such clips are expected to be similar.

    - `hashes`, `there`: as returned by `clip_hashes`.
    - `limit`: largest distance of a pair, as in `near_pairs`.
    """
    numbers = np.flatnonzero(there)
    groups = groups_of(index, group)
    pairs = [
        NearPair(int(numbers[pair.first]), int(numbers[pair.second]), pair.bits)
        for pair in near_pairs(hashes[numbers], limit)
    ]
    return [p for p in pairs if groups is None or groups[p.first] != groups[p.second] or not groups[p.first]]


def warn_of_duplicates(
    index: Index,
    splits: Sequence[Split],
    group: str = "group",
    folder: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[NearPair]:
    """Warns on standard error about near-duplicates on both sides of a split, and returns these pairs.

    Pairs within one `group` are omitted: the warning about divided groups covers them.

    - `folder`: where hashes are stored.
    """
    hashes, there = clip_hashes(index, folder, workers, progress)
    pairs = duplicates(index, hashes, there, group)
    crossing = [pair for pair in pairs if any(_crosses(pair, split) for split in splits)]
    if crossing:
        named = ", ".join(
            f"'{index.samples[p.first].key}' and '{index.samples[p.second].key}' ({p.bits} of {BITS} bits differ)"
            for p in crossing[:SHOWN]
        )
        more = f", and {len(crossing) - SHOWN} more pairs" if len(crossing) > SHOWN else ""
        count = "1 pair of clips is" if len(crossing) == 1 else f"{len(crossing)} pairs of clips are"
        warn(
            f"{count} nearly identical and on both sides of a split: {named}{more}. Scores may be too high. "
            f"Give such clips the same value in column '{group}' (`modalgate verify SHARDS --duplicates` lists all)"
        )
    return crossing


def _crosses(pair: NearPair, split: Split) -> bool:
    both = (pair.first, pair.second)
    taught = np.isin(both, split.train) | np.isin(both, split.validation)
    tested = np.isin(both, split.test)
    return bool((taught[0] and tested[1]) or (taught[1] and tested[0]))


def _read(folder: Path | None) -> dict[str, NDArray[np.uint64]]:
    """Returns the stored hashes by name.

    Returns nothing if the file is missing or damaged, so they are computed again.
    """
    if folder is None or not (folder / FILE).is_file():
        return {}
    try:
        with safe_open(folder / FILE, framework="numpy") as file:
            names = json.loads(file.metadata()["names"])
            return dict(zip(names, file.get_tensor("hashes"), strict=True))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return {}


def _write(folder: Path, hashes: dict[str, NDArray[np.uint64]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / FILE) as partial:
        save_file({"hashes": np.stack(list(hashes.values()))}, partial, {"names": json.dumps(list(hashes))})
