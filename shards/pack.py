"""From a folder of recordings to WebDataset shards with an index."""

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from av.error import FFmpegError
from webdataset.writer import TarWriter

from .encode import EncodedClip, Moments, encode_clip
from .errors import DataError, RequestError
from .index import Index, PackSettings, Sample, Shard, Statistics, save_index
from .modality import modality
from .recording import read_recording
from .sources import Source, find_sources

REJECTED_NAME = "rejected.jsonl"
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Rejected:
    """A recording that could not be packed, and why."""

    file: str
    reason: str


def pack(
    source: Path,
    out: Path,
    settings: PackSettings,
    labels: Path | None = None,
    workers: int | None = None,
    max_rejected: float = 0.05,
    progress: Progress | None = None,
) -> Index:
    """Packs every recording below `source` into shards in `out`, shuffled, and returns their index.

    `progress(done, total, rejected)` is told after each recording. Unreadable recordings are skipped and listed in
    `rejected.jsonl`; above the share `max_rejected` of them a `DataError` is raised. `out` must be absent or empty
    (`RequestError`); it appears whole, or not at all. The bytes do not depend on `workers`.
    """
    for name in settings.modalities:
        modality(name)
    sources = find_sources(source, labels)
    _check_modalities(sources, settings)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"'{out}' already holds something: give an empty or new folder for the shards")
    order = np.random.default_rng(settings.seed).permutation(len(sources))
    target = out.resolve()
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        writer = _Writer(partial, settings)
        rejected: list[Rejected] = []
        for done, result in enumerate(_encode_all([sources[i] for i in order], settings, workers), start=1):
            if isinstance(result, Rejected):
                rejected.append(result)
            else:
                for clip in result:
                    writer.add(clip)
            if progress is not None:
                progress(done, len(sources), len(rejected))
        _judge(rejected, len(sources), max_rejected)
        if rejected:
            lines = [json.dumps({"file": item.file, "reason": item.reason}) for item in rejected]
            (partial / REJECTED_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")
        index = writer.close(out)
        if target.exists():
            target.rmdir()
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return index


def _check_modalities(sources: list[Source], settings: PackSettings) -> None:
    """A modality that no recording can have is a slip of the request, not a property of the data."""
    held = {kind for source in sources for kind in source.files}
    possible = held | ({"rgb", "flow", "audio"} if "video" in held else set())
    for name in settings.modalities:
        if name not in possible:
            raise RequestError(
                f"no recording has modality '{name}' (they can have: {', '.join(sorted(possible - {'video'}))})"
            )


def _judge(rejected: list[Rejected], total: int, max_rejected: float) -> None:
    if len(rejected) > max_rejected * total or len(rejected) == total:
        first = rejected[0]
        raise DataError(
            f"{len(rejected)} of {total} recordings cannot be packed, the first '{first.file}': {first.reason}"
            f" (at most {max_rejected:.0%} may be; raise --max-rejected to go on without them)"
        )


def _encode_all(
    sources: list[Source], settings: PackSettings, workers: int | None
) -> Iterator[list[EncodedClip] | Rejected]:
    """Results in the order of `sources`, a few ahead of their consumer, so that memory stays bounded."""
    workers = min(workers or os.cpu_count() or 1, len(sources))
    if workers == 1:
        yield from (encode_source(source, settings) for source in sources)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker) as pool:
        waiting: deque[Future[list[EncodedClip] | Rejected]] = deque()
        try:
            for source in sources:
                waiting.append(pool.submit(encode_source, source, settings))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare_worker() -> None:
    """Ctrl-C reaches the whole process group: only the parent is to answer it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def encode_source(source: Source, settings: PackSettings) -> list[EncodedClip] | Rejected:
    """All clips of one recording, or the reason why it cannot be packed."""
    clips = []
    try:
        pieces = read_recording(source.files, settings)
        number, piece = 0, next(pieces, None)
        while piece is not None:
            following = next(pieces, None)
            cut = number > 0 or following is not None
            if piece.streams:
                key = f"{source.key}-{number:03d}" if cut else source.key
                clips.append(encode_clip(source, key, piece, settings))
            number, piece = number + 1, following
    # IndexError: PyAV's answer to a container without the stream asked for.
    except (FFmpegError, OSError, ValueError, EOFError, IndexError, csv.Error, cv2.error) as error:
        return Rejected(str(next(iter(source.files.values()))), _reason(error))
    if not clips:
        return Rejected(str(next(iter(source.files.values()))), f"it has none of {', '.join(settings.modalities)}")
    return clips


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


class _Writer:
    """The shard being filled, and what the index will say of all of them."""

    def __init__(self, folder: Path, settings: PackSettings) -> None:
        self.folder, self.settings = folder, settings
        self.waiting: list[EncodedClip] = []
        self.shards: list[Shard] = []
        self.samples: list[Sample] = []
        self.groups: list[str] = []
        self.moments: dict[str, Moments] = {}

    def add(self, clip: EncodedClip) -> None:
        self.waiting.append(clip)
        self.groups.append(clip.group)
        for name, moments in clip.moments.items():
            self.moments[name] = self.moments[name] + moments if name in self.moments else moments
        if len(self.waiting) == self.settings.samples_per_shard:
            self._write_shard()

    def _write_shard(self) -> None:
        name = f"shard-{len(self.shards):06d}.tar"
        path = self.folder / name
        partial = path.with_suffix(".tar.partial")
        with partial.open("wb") as file:
            tar = TarWriter(file, encoder=False, mtime=0, user="modalgate", group="modalgate")
            for clip in self.waiting:
                tar.write({"__key__": clip.key, **clip.members})
            tar.close()
        os.replace(partial, path)
        with tarfile.open(path) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
        for clip in self.waiting:
            members = {suffix: places[f"{clip.key}.{suffix}"] for suffix in clip.members}
            self.samples.append(Sample(clip.key, name, clip.duration, clip.labels, members))
        present = {
            wanted: sum(wanted in clip.moments for clip in self.waiting) for wanted in self.settings.modalities
        }
        self.shards.append(Shard(name, len(self.waiting), path.stat().st_size, sha256(path), present))
        self.waiting = []

    def close(self, folder: Path) -> Index:
        """Writes the last shard and the index, which will be read from `folder`."""
        if self.waiting:
            self._write_shard()
        statistics = {name: _statistics(moments) for name, moments in self.moments.items()}
        samples = self.samples
        # Without a group column, and with no recording cut in pieces, every clip stands for itself.
        if len(set(self.groups)) < len(samples) or any("group" in sample.labels for sample in samples):
            samples = [
                replace(sample, labels=sample.labels | {"group": group})
                for sample, group in zip(samples, self.groups, strict=True)
            ]
        index = Index(self.settings, statistics, tuple(self.shards), tuple(samples), folder=folder)
        save_index(index, self.folder)
        return index


def _statistics(moments: Moments) -> Statistics:
    mean = moments.total / moments.count
    variance = np.maximum(moments.squares / moments.count - mean**2, 0)
    return Statistics(tuple(mean.tolist()), tuple(np.sqrt(variance).tolist()))


def sha256(path: Path) -> str:
    """The file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
