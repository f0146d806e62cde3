"""Near-duplicate clips: perceptual hashes of frames, and pairs of clips with nearly equal hashes.

A fixed camera gives every clip of a place the same picture, so pictures alone would make all of them duplicates. One
word of a clip's hash describes its mean picture, and eight describe what moves in front of it. Two clips are
near-duplicates if both parts agree.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..index.location import FolderReader
from ..index.table import Index, Sample
from ..index.unreadable import UNREADABLE, reason_of
from ..modality import MODALITIES, modality
from .decode import decode_frames

FRAMES, SIDE, WORDS = 8, 32, 9
PICTURE_BITS, MOTION_BITS = 63, 64 * FRAMES
# Share of the bits of either kind that may differ: chosen on data, see docs/guides/evaluation/evaluation.md.
LIMIT = 0.175
# The hash is made from the first of these that a clip has, else from declared pictures.
SEEN = ("rgb", "depth", "flow")
_BLOCK = 256


@dataclass(frozen=True)
class NearPair:
    """Two similar clips."""

    first: int
    """Number of the first clip."""
    second: int
    """Number of the second clip, above `first`."""
    bits: int
    """Number of the 575 bits of their hashes that differ."""


def hash_frames(frames: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Returns the hash (9,) of frames (8, 32, 32).

    The bits are signs of the 64 lowest frequencies: of each frame minus the mean frame, and of the mean frame minus
    the median of its frequencies (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
    2010).
    """
    mean = frames.mean(axis=0)
    # Above the rounding error of single precision in a still picture.
    moving = np.stack([_low(frame - mean) for frame in frames]) > 0.01
    picture = _low(mean)
    # The lowest frequency is the brightness.
    still = picture[1:] > np.median(picture[1:])
    bits = np.concatenate([[False], still, moving.reshape(-1)])
    return np.packbits(bits).view(np.uint64)


def hash_clip(files: FolderReader, index: Index, sample: Sample) -> NDArray[np.uint64] | None:
    """Returns the hash of a packed clip's uniform frames; None if it has no pictures or they cannot be decoded."""
    names = [*SEEN, *(name for name, entry in MODALITIES.items() if entry.kind == "video" and not entry.flow_of)]
    entry = next((modality(name) for name in names if modality(name).suffix in sample.members), None)
    if entry is None:
        return None
    times = (np.arange(FRAMES) + 0.5) / FRAMES * sample.duration
    try:
        data = files.read(sample.shard, *sample.members[entry.suffix])
        frames = decode_frames(data, times, index.settings.fps, entry, SIDE, (0.5, 0.5))
    except UNREADABLE as error:
        # Reading the clip for training or evaluation reports the fault.
        reason_of(error)
        return None
    return hash_frames(frames.astype(np.float32).mean(axis=1))


def near_pairs(hashes: NDArray[np.uint64], limit: float = LIMIT) -> list[NearPair]:
    """Returns the near-duplicate pairs among hashes (n, 9), nearest first.

    All pairs are compared, the mean pictures first, so no pair is missed. Ten thousand clips take seconds
    (benchmarks/learning/hash_distances.py).
    """
    found = []
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        still = np.bitwise_count(block[:, None, 0] ^ hashes[None, start:, 0])
        rows, columns = np.nonzero(still <= limit * PICTURE_BITS)
        later = rows < columns
        rows, columns = rows[later], columns[later]
        moving = np.zeros(len(rows), np.int64)
        for word in range(1, WORDS):
            moving += np.bitwise_count(block[rows, word] ^ hashes[start + columns, word])
        near = moving <= limit * MOTION_BITS
        bits = moving + still[rows, columns]
        found += [
            NearPair(start + int(row), start + int(column), int(count))
            for row, column, count in zip(rows[near], columns[near], bits[near], strict=True)
        ]
    return sorted(found, key=lambda pair: (pair.bits, pair.first, pair.second))


def _low(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the 64 lowest frequencies of a picture (32, 32)."""
    return np.asarray(cv2.dct(picture), np.float32)[:8, :8].reshape(-1)
