"""The full check of a shard folder: checksums, the index against the tars, and every member decoded."""

import io
import json
import tarfile
import wave
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from ..media.container_io import iterate_frames
from ..modality import modality
from .table import Index, Sample, Shard, load_index
from .whole_file import sha256


def verify(folder: Path) -> list[str]:
    """One line for each thing wrong, naming shard and clip; none where the folder is whole.

    Raises `RequestError` where the folder holds no index this version reads, and `DataError` where it is damaged.
    """
    index = load_index(folder)
    problems = [
        f"clip '{key}' is {count} times in the index"
        for key, count in Counter(sample.key for sample in index.samples).items()
        if count > 1
    ]
    known = {shard.name for shard in index.shards}
    problems += [
        f"'{path.name}' is not in the index" for path in sorted(folder.glob("*.tar")) if path.name not in known
    ]
    problems += [
        f"clip '{sample.key}' is in '{sample.shard}', a shard the index does not list"
        for sample in index.samples
        if sample.shard not in known
    ]
    held: dict[str, list[Sample]] = {}
    for sample in index.samples:
        held.setdefault(sample.shard, []).append(sample)
    for shard in index.shards:
        samples = held.get(shard.name, [])
        problems += (f"'{shard.name}': {problem}" for problem in _shard_problems(folder, index, shard, samples))
    return problems


def _shard_problems(folder: Path, index: Index, shard: Shard, samples: list[Sample]) -> Iterator[str]:
    # An index is somebody else's input: a name must not lead out of its folder.
    if Path(shard.name).name != shard.name:
        yield "the index gives a path where a file name belongs"
        return
    path = folder / shard.name
    if not path.is_file():
        yield "missing"
        return
    if path.stat().st_size != shard.bytes:
        yield f"{path.stat().st_size} bytes, the index says {shard.bytes}"
    elif sha256(path) != shard.sha256:
        yield "its SHA-256 is not the index's: something in it was changed"
    places: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
    except (tarfile.TarError, EOFError) as error:
        yield f"cannot be read as a tar to its end ({error})"
    yield from _index_problems(index, shard, samples, places)
    with path.open("rb") as file:
        for sample in samples:
            members = {}
            for suffix, (offset, size) in sample.members.items():
                file.seek(offset)
                members[suffix] = file.read(size)
            for suffix, problem in _sample_problems(index, sample, members):
                yield f"clip '{sample.key}', {suffix}: {problem}"


def _index_problems(
    index: Index, shard: Shard, samples: list[Sample], places: dict[str, tuple[int, int]]
) -> Iterator[str]:
    """Where the index says something else than the tar's headers."""
    if len(samples) != shard.samples:
        yield f"the index counts {shard.samples} clips and lists {len(samples)}"
    for name in index.settings.modalities:
        held = sum(modality(name).suffix in sample.members for sample in samples)
        if held != shard.present.get(name, 0):
            yield f"the index counts {shard.present.get(name, 0)} clips with {name} and lists {held}"
    listed = {f"{sample.key}.{suffix}": place for sample in samples for suffix, place in sample.members.items()}
    for name, place in listed.items():
        if name not in places:
            yield f"'{name}' is in the index and not in the tar"
        elif places[name] != place:
            yield f"'{name}' is at (byte, length) {places[name]}, the index says {place}"
    for name in places:
        if name not in listed:
            yield f"'{name}' is in the tar and not in the index"


def _sample_problems(index: Index, sample: Sample, members: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """(suffix, what is wrong) of one clip."""
    try:
        content = json.loads(members["json"])
        facts, labels, duration = content["modalities"], content["labels"], content["duration"]
    except (KeyError, TypeError, ValueError) as error:
        yield "json", f"damaged ({error!r})"
        return
    # The index adds a group to clips whose label file has none.
    if {**sample.labels, "group": ""} != {**labels, "group": ""} or sample.duration != duration:
        yield "json", "its labels or its duration are not the index's"
    for name in index.settings.modalities:
        suffix = modality(name).suffix
        if (name in facts) != (suffix in members):
            yield suffix, "the index and the clip's JSON disagree whether it is there"
        elif suffix in members:
            data = members[suffix]
            problem = _decode_problem(name, data, facts[name].get("length"), index.settings.sample_rate)
            if problem is None and zlib.crc32(data) != facts[name].get("crc32"):
                problem = "its CRC-32 is not the one its JSON notes: something in it was changed"
            if problem:
                yield suffix, problem


def _decode_problem(name: str, data: bytes, length: int | None, sample_rate: int) -> str | None:
    """What keeps a member from being decoded in full; `length`: the frames or samples it was packed with."""
    entry = modality(name)
    try:
        if entry.kind == "video":
            count = sum(1 for _ in iterate_frames(io.BytesIO(data)))
        elif entry.kind == "audio":
            with wave.open(io.BytesIO(data)) as file:
                if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (sample_rate, 1, 2):
                    return f"not mono 16-bit sound at {sample_rate} Hz"
                count = len(file.readframes(file.getnframes())) // 2
        else:
            signal = np.load(io.BytesIO(data), allow_pickle=False)
            if signal.ndim != 2 or signal.shape[1] != entry.channels:
                return f"shape {signal.shape}, {name} needs (samples, {entry.channels})"
            count = len(signal)
        return None if count == length else f"{count} of {length} frames or samples can be decoded"
    except (FFmpegError, IndexError, OSError, ValueError, EOFError, wave.Error) as error:
        return f"cannot be decoded ({error})"
