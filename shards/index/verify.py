"""Check a shard folder in full: checksums, the index against the tars, and the decoding of every member."""

import io
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..media.container_io import find_pictures, iterate_frames, open_media
from ..modality import modality
from .members import stored_facts, stored_rate, stored_signal, stored_sound
from .table import Index, Sample, Shard, load_index
from .unreadable import UNREADABLE, reason_of
from .whole_file import sha256


def verify(folder: Path) -> list[str]:
    """Returns one line for each fault, naming shard and clip; an empty list for an intact folder.

    Raises `RequestError` for a folder without an index that this version reads, and `DataError` for a damaged index.
    """
    index = load_index(folder)
    problems = [
        f"clip '{key}' occurs {count} times in the index"
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
    # An index is untrusted input: a name must not lead out of its folder.
    if Path(shard.name).name != shard.name:
        yield "the index gives a path instead of a file name"
        return
    path = folder / shard.name
    if not path.is_file():
        yield "missing"
        return
    if path.stat().st_size != shard.bytes:
        yield f"{path.stat().st_size} bytes, the index says {shard.bytes}"
    elif sha256(path) != shard.sha256:
        yield "its SHA-256 differs from the index: it was changed"
    places: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
    except (tarfile.TarError, *UNREADABLE) as error:
        yield f"cannot be read as a tar to its end ({reason_of(error)})"
    yield from _index_problems(index, shard, samples, places)
    with path.open("rb") as file:
        for sample in samples:
            members = {}
            for suffix, (offset, size) in sample.members.items():
                if not 0 <= offset <= offset + size <= path.stat().st_size:
                    yield f"clip '{sample.key}', {suffix}: it is not within the shard"
                    continue
                file.seek(offset)
                members[suffix] = file.read(size)
            for suffix, problem in _sample_problems(index, sample, members):
                yield f"clip '{sample.key}', {suffix}: {problem}"


def _index_problems(
    index: Index, shard: Shard, samples: list[Sample], places: dict[str, tuple[int, int]]
) -> Iterator[str]:
    """Yields differences between the index and the headers of the tar."""
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
    """Yields (suffix, problem) of one clip."""
    try:
        facts, content = stored_facts(members["json"]), json.loads(members["json"])
        # The index adds a group to clips whose label file has none.
        same = {**sample.labels, "group": ""} == {**content["labels"], "group": ""}
        same = same and sample.duration == content["duration"]
    except (KeyError, TypeError, ValueError) as error:
        yield "json", f"damaged ({error})"
        return
    if not same:
        yield "json", "its labels or its duration differ from the index"
    for name in index.settings.modalities:
        suffix = modality(name).suffix
        if (name in facts) != (suffix in members):
            yield suffix, "the index and the clip's JSON disagree on whether it exists"
        elif suffix in members:
            data = members[suffix]
            problem = _decode_problem(name, data, facts[name].get("length"), index.settings.sample_rate)
            if problem is None and zlib.crc32(data) != facts[name].get("crc32"):
                problem = "its CRC-32 differs from the clip's JSON: it was changed"
            if problem:
                yield suffix, problem
            if modality(name).kind == "signal":
                try:
                    stored_rate(members["json"], name)
                except ValueError as error:
                    yield suffix, str(error)


def _decode_problem(name: str, data: bytes, length: int | None, sample_rate: int) -> str | None:
    """Returns why a member cannot be decoded in full. `length`: the frames or samples it was packed with."""
    entry = modality(name)
    try:
        if entry.kind == "video":
            pictures = [_digest(frame) for _, frame in iterate_frames(io.BytesIO(data))]
            count, wrong = len(pictures), _wrong_from_key_frames(data, pictures)
            if count == length and wrong:
                return f"{wrong} of {length} frames differ when decoding starts at their key frame"
        elif entry.kind == "audio":
            count = len(stored_sound(data, sample_rate))
        else:
            count = len(stored_signal(data, entry))
        return None if count == length else f"{count} of {length} frames or samples can be decoded"
    except UNREADABLE as error:
        return f"cannot be decoded ({reason_of(error)})"


def _digest(frame: Any) -> int:
    """Returns a checksum of a decoded frame's pixels."""
    return zlib.crc32(frame.to_ndarray().tobytes())


def _wrong_from_key_frames(data: bytes, pictures: list[int]) -> int:
    """Returns how many frames differ from `pictures` if each run of frames is decoded from its key frame alone.

    Windows are decoded like this. A frame that refers to one before its key frame, as in an intra refresh, is wrong.
    """
    wrong = 0
    with open_media(io.BytesIO(data)) as container:
        stream = find_pictures(container)
        assert stream is not None
        ticks = [packet for packet in container.demux(stream) if packet.pts is not None]
        numbers = {pts: number for number, pts in enumerate(sorted(packet.pts for packet in ticks))}
        starts = [number for number, packet in enumerate(ticks) if packet.is_keyframe]
        for first, last in zip(starts, [*starts[1:], len(ticks)], strict=True):
            stream.codec_context.flush_buffers()
            frames = [frame for packet in ticks[first:last] for frame in packet.decode()]
            frames += stream.codec_context.decode(None)
            found = {numbers[frame.pts]: _digest(frame) for frame in frames if frame.pts in numbers}
            wrong += sum(
                found.get(numbers[packet.pts]) != pictures[numbers[packet.pts]] for packet in ticks[first:last]
            )
    return wrong
