"""Recordings with planted flashes and beeps in awkward forms, for `media_truth.py`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

FPS, RATE, SIZE = 25, 48000, 48
FLASH, BEEP = 0.2, 0.1
SOUND_FILES = (".mp3", ".m4a", ".ogg")
Packets = Callable[[Any], bool]


@dataclass
class Case:
    """A recording and what was planted in it.

    - `pictures`, `sound`: seconds of flashes and beeps.
    - `seconds`: its duration. None: not compared.
    - `ways`: how it is read.
    """

    name: str
    path: Path
    pictures: list[float] = field(default_factory=list)
    sound: list[float] = field(default_factory=list)
    seconds: float | None = None
    ways: tuple[str, ...] = ("pack", "slide", "url")


def flashes(
    events: list[float], seconds: float, fps: float = FPS, size: tuple[int, int] = (SIZE, 64)
) -> NDArray[Any]:
    """Dark frames (T, H, W, 3) that are bright for a moment from each event on."""
    frames = np.full((round(seconds * fps), *size, 3), 16, np.uint8)
    for event in events:
        first = round(event * fps)
        frames[first : first + round(FLASH * fps)] = 235
    return frames


def beeps(events: list[float], seconds: float) -> NDArray[np.float32]:
    """Silence (N,) with a tone from each event on."""
    times = np.arange(round(seconds * RATE)) / RATE
    heard = np.zeros(len(times), bool)
    for event in events:
        heard |= (times >= event) & (times < event + BEEP)
    return (0.5 * np.sin(2 * np.pi * 1000 * times) * heard).astype(np.float32)


def write(
    path: Path,
    frames: NDArray[Any] | None,
    tracks: list[NDArray[np.float32]],
    codec: str = "libx264",
    sound_codec: str = "aac",
    options: dict[str, str] | None = None,
    stamps: list[float] | None = None,
    default: int | None = None,
    aspect: Fraction | None = None,
    cover: bool = False,
) -> Path:
    """Writes frames and sound tracks, mono (N,) or stereo (2, N), interleaved in time.

    - `stamps`: seconds of each frame. Default: constant rate.
    - `default`: number of the track that is marked as default; all others are not.
    """
    # The writer of .m4a knows no picture codec.
    with av.open(f"file:{path}", "w", format="mp4" if path.suffix == ".m4a" else None) as container:
        video: Any = None
        if frames is not None:
            video = container.add_stream(codec, rate=FPS, options={"g": "12"} | (options or {}))
            video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000 if stamps else FPS)
            if aspect is not None:
                video.codec_context.sample_aspect_ratio = aspect
        sounds: list[Any] = []
        for number, track in enumerate(tracks):
            layout = "mono" if track.ndim == 1 else "stereo"
            sounds.append(container.add_stream(sound_codec, rate=RATE, layout=layout))
            if default is not None:
                sounds[-1].disposition = Disposition.default if number == default else Disposition(0)
        picture: Any = None
        if cover and path.suffix == ".mkv":
            image = np.full((64, 64, 3), 90, np.uint8)
            container.add_attachment("cover.png", "image/png", cv2.imencode(".png", image)[1].tobytes())
        elif cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            one = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8)).reformat(format="yuvj420p")
            container.mux(picture.encode(one))
            container.mux(picture.encode(None))
        written = 0
        count = 0 if frames is None else len(frames)
        seconds = max(count / FPS, *(track.shape[-1] / RATE for track in tracks), 0) if tracks else count / FPS
        for step in range(round(seconds * FPS) + 1):
            if frames is not None and step < count:
                frame = av.VideoFrame.from_ndarray(frames[step]).reformat(format="yuv420p")
                if stamps:
                    frame.pts, frame.time_base = round(stamps[step] * 1000), Fraction(1, 1000)
                else:
                    frame.pts, frame.time_base = step, Fraction(1, FPS)
                container.mux(video.encode(frame))
            until = round(step * RATE / FPS)
            for sound, track in zip(sounds, tracks, strict=True):
                part = np.atleast_2d(track)[:, written:until]
                if part.shape[1]:
                    form = "mono" if track.ndim == 1 else "stereo"
                    piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout=form)
                    piece.sample_rate, piece.pts, piece.time_base = RATE, written, Fraction(1, RATE)
                    container.mux(sound.encode(piece))
            written = until
        for stream in [video, *sounds]:
            if stream is not None:
                container.mux(stream.encode(None))
    return path


def change(source: Path, target: Path, keep: Packets, shift: float = 0.0, end: float | None = None) -> Path:
    """Copies the packets of `source` for which `keep` is true, `shift` seconds later, without encoding."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is None or packet.pts is None or not keep(packet):
                continue
            seconds = float(packet.pts * packet.time_base)
            if end is not None and seconds >= end:
                continue
            moved = round(shift / packet.time_base)
            packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
            packet.stream = streams[packet.stream.index]
            written.mux(packet)
    return target


def keep_outside(first: float, last: float, packet: Any) -> bool:
    """Whether a packet is of the pictures, or of sound outside this time."""
    return packet.stream.type == "video" or not first <= float(packet.pts * packet.time_base) < last


def timing_cases(folder: Path) -> Iterator[Case]:
    """Gaps, joints, cuts, sparse frames and reordered frames."""
    events = [1.0, 4.0, 6.6]
    for suffix, codec, sound_codec in (
        ("mkv", "libx264", "aac"), ("mp4", "libx264", "aac"), ("mov", "libx264", "aac"),
        ("ts", "libx264", "mp2"), ("webm", "libvpx", "libopus"), ("avi", "mpeg4", "mp2"),
        ("flv", "libx264", "aac"), ("mpg", "mpeg2video", "mp2"),
    ):  # fmt: skip
        base = folder / f"base.{suffix}"
        write(base, flashes(events, 8), [beeps(events, 8)], codec, sound_codec, options={"bf": "0"})

        # This program stream stores its sound more than a second after its pictures: too late for a camera.
        ways = ("pack", "slide") if suffix == "mpg" else ("pack", "slide", "url")
        yield Case(f"plain .{suffix}", base, events, events, 8.0, ways)
        # AVI and program streams store no time for every packet: there the gap would not be in the file.
        if suffix not in ("avi", "mpg"):
            with av.open(str(base)) as container:
                start = (container.start_time or 0) / 1e6
            gap = change(base, folder / f"gap.{suffix}", partial(keep_outside, 3 + start, 5 + start))
            yield Case(f"sound lost from 3 to 5 s .{suffix}", gap, events, [1.0, 6.6], 8.0)
    for suffix, codec in (("ts", "libx264"), ("mpg", "mpeg2video")):
        four = write(folder / f"four.{suffix}", flashes([1.0, 3.0], 4), [beeps([1.0, 3.0], 4)], codec, "mp2")
        six = write(folder / f"six.{suffix}", flashes([2.0, 5.0], 6), [beeps([2.0, 5.0], 6)], codec, "mp2")
        for name, parts, planted, seconds in (
            ("4 + 4 s", (four, four), [1.0, 3.0, 5.0, 7.0], 8.0),
            ("4 + 6 s", (four, six), [1.0, 3.0, 6.0, 9.0], 10.0),
            ("6 + 4 + 6 s", (six, four, six), [2.0, 5.0, 7.0, 9.0, 12.0, 15.0], 16.0),
        ):
            joined = folder / f"{name.replace(' ', '')}.{suffix}"
            joined.write_bytes(b"".join(part.read_bytes() for part in parts))
            # A camera that restarts begins a new section, at the time of its arrival.
            yield Case(f"cat {name} .{suffix}", joined, planted, planted, seconds, ("pack", "slide"))
    long = write(folder / "long.mp4", flashes([1.0, 3.2, 6.0], 8), [beeps([1.0, 3.2, 6.0], 8)], options={"g": "50"})
    for suffix in ("mp4", "mov"):
        cut = change(long, folder / f"cut.{suffix}", lambda packet: True, shift=-2.6, end=8.0)
        yield Case(f"cut at 2.6 s without encoding .{suffix}", cut, [0.6, 3.4], [0.6, 3.4], 5.4)
    stamps = [n / FPS for n in range(50)] + [2.0 + n for n in range(5)] + [7.0 + n / FPS for n in range(25)]
    frames = np.full((80, SIZE, 64, 3), 16, np.uint8)
    frames[[15, 16, 17, 18, 19, 53, 62, 63, 64, 65, 66]] = 235
    planted = [0.6, 5.0, 7.0 + 7 / FPS]
    yield Case("1 fps from 2 to 7 s .mkv", write(
        folder / "sparse.mkv", frames, [beeps(planted, 8)], stamps=stamps, options={"bf": "0"}
    ), planted, planted, 8.0)  # fmt: skip
    for suffix, codec, sound_codec in (
        ("avi", "mpeg4", "pcm_s16le"), ("avi", "libx264", "pcm_s16le"), ("avi", "mpeg2video", "mp2"),
        ("mkv", "libx264", "aac"), ("mp4", "libx264", "aac"), ("ts", "mpeg2video", "mp2"),
    ):  # fmt: skip
        path = folder / f"reordered-{codec}.{suffix}"
        write(
            path, flashes(events, 8), [beeps(events, 8)], codec, sound_codec, options={"bf": "3", "b_strategy": "0"}
        )
        yield Case(f"reordered {codec} .{suffix}", path, events, events, 8.0)


def stream_cases(folder: Path) -> Iterator[Case]:
    """Several tracks, covers, sound alone, channels and names."""
    events, seconds = [1.0, 2.6], 4.0
    frames, silent, heard = flashes(events, seconds), np.zeros(4 * RATE, np.float32), beeps(events, seconds)
    other = beeps([0.4], seconds)
    two = write(folder / "silent-first.mkv", frames, [silent, heard], default=1)
    yield Case("silent track, then the default one", two, events, events, seconds)
    two = write(folder / "default-second.mkv", frames, [other, heard], default=1)
    yield Case("another track, then the default one", two, events, events, seconds)
    two = write(folder / "no-default.ts", frames, [silent, heard], sound_codec="mp2")
    yield Case("silent track, then one that sounds .ts", two, events, events, seconds, ("pack", "slide"))
    for suffix, codec in (("mp3", "libmp3lame"), ("m4a", "aac"), ("mp4", "aac"), ("mkv", "aac")):
        path = write(folder / f"cover.{suffix}", None, [heard], sound_codec=codec, cover=True)
        yield Case(f"sound with a cover .{suffix}", path, [], events, seconds)
    path = write(folder / "film-with-cover.mp4", frames, [heard], cover=True)
    yield Case("film with a cover .mp4", path, events, events, seconds)
    for suffix, codec in (("mp4", "aac"), ("webm", "libopus"), ("mkv", "flac"), ("ogg", "libopus"), ("ts", "mp2")):
        path = write(folder / f"sound-only.{suffix}", None, [heard], sound_codec=codec)
        yield Case(f"sound alone .{suffix}", path, [], events, seconds)
    for codec, suffix in (("pcm_s16le", "mov"), ("aac", "mp4"), ("flac", "mkv")):
        path = write(folder / f"opposite-{codec}.{suffix}", frames, [np.stack([heard, -heard])], sound_codec=codec)
        # The index of a .mov is at its end, which this server cannot send first.
        ways = ("pack", "slide") if suffix == "mov" else ("pack", "slide", "url")
        yield Case(f"stereo of opposite phase, {codec}", path, events, events, seconds, ways)
