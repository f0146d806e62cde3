"""Distances between hashes of copies and of other clips, and the time to compare many.

    .venv/bin/python benchmarks/learning/hash_distances.py SHARDS...

A copy is the clip's packed video at nine tenths of its size, encoded again at a lower quality (crf 32). Pairs of
one `group` are skipped. The first line of a folder names the limit in use.
"""

import io
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from modalgate.shards.clips.decode import decode_frames
from modalgate.shards.clips.duplicates import FRAMES, LIMIT, SIDE, WORDS, hash_frames, near_pairs
from modalgate.shards.index.location import FolderReader
from modalgate.shards.index.table import load_index
from modalgate.shards.media.container_io import iterate_frames, write_video
from modalgate.shards.modality import modality
from modalgate.tasks.splits.leak_check import clip_hashes, duplicates

EVERY, LIMITS = 8, (0.05, 0.1, 0.15, 0.175, 0.2, 0.25)


def copied(data: bytes, fps: float) -> bytes:
    """The video smaller and coarser."""
    frames = [frame.to_ndarray(format="rgb24") for _, frame in iterate_frames(io.BytesIO(data))]
    height, width = (round(length * 0.9 / 2) * 2 for length in frames[0].shape[:2])
    target = io.BytesIO()
    small = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])
    write_video(target, small, fps, container_format="mp4", options={"crf": "32"})
    return target.getvalue()


def main() -> None:
    for folder in sys.argv[1:]:
        index = load_index(folder)
        index = replace(index, samples=tuple(s for s in index.samples if "rgb.mp4" in s.members))
        hashes, there = clip_hashes(index)
        files, found = FolderReader(index.folder), []
        for number in range(0, len(hashes), EVERY):
            sample = index.samples[number]
            data = copied(files.read(sample.shard, *sample.members["rgb.mp4"]), index.settings.fps)
            times = (np.arange(FRAMES) + 0.5) / FRAMES * sample.duration
            frames = decode_frames(data, times, index.settings.fps, modality("rgb"), SIDE, (0.5, 0.5))
            copy = hash_frames(frames.astype(np.float32).mean(axis=1))
            found.append([bool(near_pairs(np.stack([hashes[number], copy]), limit)) for limit in LIMITS])
        pairs = len(hashes) * (len(hashes) - 1) // 2
        print(f"{Path(folder).name}: {len(found)} copies, {pairs} pairs of clips, limit in use {LIMIT}")
        for place, limit in enumerate(LIMITS):
            others = len(duplicates(index, hashes, there, limit=limit))
            print(
                f"  limit {limit:5.3f}: {np.mean([row[place] for row in found]):.2f} of copies, {others} other pairs"
            )
    generator = np.random.default_rng(0)
    for what in ("all pictures differ", "all pictures alike"):
        many = generator.integers(0, 2**63, (10_000, WORDS)).astype(np.uint64)
        many[:, 0] *= np.uint64(what == "all pictures differ")
        began = time.perf_counter()
        near_pairs(many)
        print(f"10000 clips, {what}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
