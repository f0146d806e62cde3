"""Hostile recordings: small files that name far times, large pictures, long tables, other files or code."""

import io
import os
import pickle
import struct
import tempfile
import wave
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from modalgate.shards.media.container_io import write_video

MEBIBYTE = 2**20


def film(seconds: float = 2.0, kind: str = "mp4") -> bytes:
    """A valid film."""
    pictures = np.random.default_rng(0).integers(0, 255, (round(10 * seconds), 48, 64, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, f"film.{kind}")
        write_video(path, pictures, 10)
        return path.read_bytes()


def late_film(times: list[float], sound: bool = False) -> bytes:
    """A Matroska film of frames, or a sound of packets, at `times` in seconds. Its header states no duration."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska", options={"live": "1"}) as container:
        if sound:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        else:
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "gray"
        for at in times:
            if sound:
                frame: Any = av.AudioFrame.from_ndarray(np.ones((1, 800), np.int16), format="s16", layout="mono")
                frame.sample_rate = 8000
                frame.pts, frame.time_base = round(8000 * at), Fraction(1, 8000)
            else:
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32), np.uint8), format="gray")
                frame.pts, frame.time_base = round(10 * at), Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def png(width: int, height: int) -> bytes:
    """A black PNG, 1000 times smaller than its picture."""
    packer, row = zlib.compressobj(9), bytes(1 + width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def picture_film(width: int, count: int = 1, height: int | None = None) -> bytes:
    """A MOV of PNG pictures, square without a `height`, whose header says 64 x 64."""
    target, picture = io.BytesIO(), png(width, height or width)
    with av.open(target, "w", format="mov") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "gray"
        container.start_encoding()
        for number in range(count):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            packet.is_keyframe = True
            container.mux(packet)
    return target.getvalue()


def patched(content: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """`content` with `value` written `offset` bytes after the name of an MP4 box."""
    place = content.index(box) + len(box) + offset
    return content[:place] + value + content[place + len(value) :]


def long_silence(hours: int) -> bytes:
    """Hours of silence as FLAC."""
    target = io.BytesIO()
    with av.open(target, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        count = 0
        while count < hours * 3600 * 8000:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, count, Fraction(1, 8000)
            count += 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def slow_sound(seconds: int) -> bytes:
    """A WAV of one sample per second."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(1)
        file.writeframes(bytes(2 * seconds))
    return target.getvalue()


def matlab_bomb(size: int) -> bytes:
    """A MATLAB file of `size` bytes of zeros, a thousand times smaller."""
    count = size // 48 * 6

    def part(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    head = part(6, struct.pack("<II", 6, 0)) + part(5, struct.pack("<ii", count // 6, 6)) + part(1, b"a")
    packer = zlib.compressobj(9)
    length = len(head) + 8 + count * 8
    packed = packer.compress(struct.pack("<II", 14, length) + head + struct.pack("<II", 9, count * 8))
    step = bytes(MEBIBYTE)
    packed += b"".join(packer.compress(step) for _ in range(count * 8 // MEBIBYTE))
    packed += packer.compress(bytes(count * 8 % MEBIBYTE)) + packer.flush()
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def matlab_four(rows: int) -> bytes:
    """A MATLAB file of version 4 that announces rows x 6 numbers and holds none."""
    return struct.pack("<iiiii", 0, rows, 6, 0, 2) + b"a\0"


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


class Harm:
    """Its pickle ends the process that reads it."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (9,)


def archive(value: Any) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, allow_pickle=True, a=np.array(value))
    return target.getvalue()


def noise(seed: int, size: int, head: bytes = b"") -> bytes:
    return head + np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8).tobytes()


def flipped(content: bytes, seed: int, share: float = 0.02) -> bytes:
    """`content` with random bytes changed."""
    generator = np.random.default_rng(seed)
    values = np.frombuffer(content, np.uint8).copy()
    chosen = generator.random(len(values)) < share
    values[chosen] = generator.integers(0, 256, chosen.sum())
    return values.tobytes()


# Valid recordings of hours, which only the server refuses.
LONG = {"a picture 100 s ahead, a hundred times", "two hours of silence", "a million short rows"}
# Those of them that `pack` reads too, within the same memory as short ones.
PACKED = {"two hours of silence", "a million short rows"}
# Files that may be scored, if that costs little.
HARMLESS = {
    "sound eleven days ahead",
    "a clock that starts again",
    "a duration of 136 years",
    "a damaged film",
    "a damaged stream",
    "480 MB in a MATLAB file",
    "a table of sixty million pictures",
    "pictures of 33 million pixels",
    "a million short rows",
}
HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"
# By name: the form field or modality, the file's name, and its content.
FILES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "a picture eleven days ahead": ("video", "late.mkv", lambda: late_film([0, 0.1, 0.2, 1e6])),
    "a picture 100 s ahead, a hundred times": (
        "video",
        "gaps.mkv",
        lambda: late_film([100.0 * n for n in range(100)]),
    ),
    "sound eleven days ahead": ("video", "late.mka", lambda: late_film([0, 0.1, 1e6], sound=True)),
    "a clock that starts again": ("video", "twice.ts", lambda: film(kind="ts") * 2),
    "a picture of 256 million pixels": (
        "video",
        "large.mov",
        lambda: patched(picture_film(16000), b"png ", 24, b"\0" * 4),
    ),
    "a header of 64 pixels, pictures of 144 million": ("video", "liar.mov", lambda: picture_film(12000, 3)),
    "pictures of 33 million pixels": ("video", "wide.mov", lambda: picture_film(5700, 20)),
    "a table of four billion pictures": (
        "video",
        "table.mp4",
        lambda: patched(film(), b"stsz", 4, struct.pack(">II", 1, 2**32 - 1)),
    ),
    "a table of sixty million pictures": (
        "video",
        "steps.mp4",
        lambda: patched(film(), b"stsz", 4, struct.pack(">II", 1, 60_000_000)),
    ),
    "a duration of 136 years": ("video", "age.mp4", lambda: patched(film(), b"mvhd", 16, b"\xff" * 4)),
    "a box of 16 exabytes": ("video", "box.mp4", lambda: patched(film(), b"moov", -8, b"\0\0\0\1moov" + b"\xff" * 8)),
    "pictures of 500000 x 60 pixels": ("video", "strip.mov", lambda: picture_film(500_000, 40, 60)),
    "two hours of silence": ("audio", "still.flac", lambda: long_silence(2)),
    "five hours of one sample per second": ("audio", "slow.wav", lambda: slow_sound(18_000)),
    "a month of one sample per second": ("audio", "slower.wav", lambda: slow_sound(2_600_000)),
    "a damaged film": ("video", "damaged.mp4", lambda: flipped(film(), 1)),
    "a damaged stream": ("video", "damaged.ts", lambda: flipped(film(kind="ts"), 2, 0.05)),
    "a film without its end": ("video", "cut.mp4", lambda: film()[:2000]),
    "noise behind the head of Matroska": ("video", "noise.mkv", lambda: noise(3, 10**6, b"\x1a\x45\xdf\xa3")),
    "noise": ("video", "noise.mp4", lambda: noise(4, 10**6)),
    "nothing": ("video", "empty.mp4", bytes),
    "a playlist of local files": ("video", "list.mp4", lambda: b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n"),
    "a list of local files": ("video", "list.mkv", lambda: b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "a session description": ("video", "call.mp4", lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"),
    "1.8 GB in a MATLAB file of 2 MB": ("inertial", "bomb.mat", lambda: matlab_bomb(1_800_000_000)),
    "480 MB in a MATLAB file": ("inertial", "half.mat", lambda: matlab_bomb(480_000_000)),
    "a MATLAB file of two billion rows": ("inertial", "four.mat", lambda: matlab_four(2**31 - 1)),
    "noise behind the head of MATLAB": ("inertial", "noise.mat", lambda: noise(5, 10**6, matlab_bomb(4800)[:128])),
    "a pickle": ("inertial", "run.npy", lambda: pickle.dumps(Harm())),
    "a pickled object in an array": (
        "inertial",
        "object.npy",
        lambda: npy(HEADER.replace("<f8", "|O") % "1, 1", pickle.dumps(Harm())),
    ),
    "an archive of pickles": ("inertial", "run.npz.npy", lambda: archive([[Harm()]])),
    "a zip bomb": ("inertial", "bomb.npz.npy", lambda: archive(np.zeros((10**7, 6)))),
    "a terabyte of rows": ("inertial", "rows.npy", lambda: npy(HEADER % f"{2**40}, 6")),
    "a deep header": ("inertial", "deep.npy", lambda: npy("(" * 9000)),
    "brackets in brackets": ("inertial", "brackets.npy", lambda: npy("[" * 3000 + "]" * 3000)),
    "numbers that are not finite": ("inertial", "nan.csv", lambda: b"nan,inf,-inf,1e999,0,0\n" * 100),
    "a million short rows": ("inertial", "rows.csv", lambda: b"1,2,3,4,5,6\n" * 600_000),
    "one long field": ("inertial", "field.csv", lambda: b'"' + b"1," * 10**6),
}
