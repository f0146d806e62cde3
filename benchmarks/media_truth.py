"""Writes recordings with known events in every awkward form, packs and slides them, and prints planted against found.

    python benchmarks/media_truth.py [--keep FOLDER]

Each case plants flashes and beeps (or a shape, a length, a name). `pack` reads them back from the shards, `slide`
from the windows of a prediction, `url` from the same file over HTTP. An event must be found within one frame and
20 ms. The last line counts the cases that are off; the status is 1 if there are any. No network beyond this machine
is used.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.stream import Disposition
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import Application
from modalgate.shards.clips.decode import decode_frames, decode_signal, decode_sound
from modalgate.shards.index.table import Index, Statistics
from modalgate.shards.index.verify import verify
from modalgate.shards.live.address import Address
from modalgate.shards.live.live_source import Gap, LiveSource, Patience
from modalgate.shards.live.sliding import slide
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import modality
from modalgate.shards.packing.pack import pack
from modalgate.shards.packing.recording import read_recording
from numpy.typing import NDArray

FPS, RATE, SIZE = 25, 48000, 48
FLASH, BEEP = 0.2, 0.1
WITHIN = 1 / FPS + 0.02
SETTINGS = PackSettings(modalities=("rgb", "audio"), size=SIZE, fps=FPS, samples_per_shard=1)
SPEC = ClipSpec(1.0, FPS, SIZE, SIZE, FPS, 16000, 14.0, {"rgb": Statistics((0.0,), (1.0,))}, packing=SETTINGS)
APPLICATION = Application(1, 1.0, 0.0, 0.0, 1.0)
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


@dataclass
class Row:
    """A line of the table."""

    case: str
    way: str
    planted: str
    found: str
    good: bool


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
    for codec in ("mpeg4", "libx264"):
        path = folder / f"reordered-{codec}.avi"
        write(
            path, flashes(events, 8), [beeps(events, 8)], codec, "pcm_s16le", options={"bf": "2", "b_strategy": "0"}
        )
        yield Case(f"reordered {codec} .avi", path, events, events, 8.0)


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


def events_of(frames: NDArray[Any] | None, sound: NDArray[Any] | None) -> tuple[list[float], list[float]]:
    """Returns the seconds at which flashes and beeps begin, in frames (T, H, W, 3) and samples (N,) at 16 kHz."""
    seen, heard = [], []
    if frames is not None and len(frames):
        bright = frames.reshape(len(frames), -1).mean(axis=1) > 128
        seen = (np.flatnonzero(np.diff(bright.astype(int), prepend=0) == 1) / FPS).tolist()
    if sound is not None:
        end = 0.0
        for place in (np.flatnonzero(np.abs(sound) > 0.15) / 16000).tolist():
            if not heard or place > end + 0.15:
                heard.append(place)
            end = place
    return seen, heard


def members_of(index: Index) -> Iterator[tuple[Any, dict[str, bytes]]]:
    """Yields the clips of packed shards with their members, in the order of their keys."""
    for sample in sorted(index.samples, key=lambda sample: sample.key):
        data = (Path(index.folder) / sample.shard).read_bytes()
        yield sample, {name: data[first : first + size] for name, (first, size) in sample.members.items()}


def packed(path: Path, folder: Path) -> tuple[list[float], list[float], float]:
    """Returns flashes, beeps and duration that `pack` finds in a recording."""
    source, out = folder / "in", folder / "out"
    source.mkdir()
    (source / path.name).symlink_to(path.resolve())
    names = ("audio",) if path.suffix in SOUND_FILES else ("rgb", "audio")
    index = pack(source, out, replace(SETTINGS, modalities=names), workers=1, max_rejected=0.0)
    ((sample, members),) = members_of(index)
    frames = sound = None
    if "rgb.mp4" in members:
        times = (np.arange(round(sample.duration * FPS)) + 0.5) / FPS
        frames = decode_frames(members["rgb.mp4"], times, FPS, modality("rgb"), SIZE, (0.5, 0.5))
    if "audio.wav" in members:
        sound = decode_sound(members["audio.wav"], np.zeros(1), sample.duration, 16000)[0]
    return *events_of(frames, sound), sample.duration


def joined_windows(pieces: Iterator[Any]) -> tuple[list[float], list[float], float]:
    """Returns flashes, beeps and end of pieces that follow each other, one window of a second each."""
    found = [piece for piece in pieces if not isinstance(piece, Gap)]
    views = [piece.views[0].streams for piece in found]
    frames = [view.get("rgb", np.zeros((FPS, 3, SIZE, SIZE), np.uint8)) for view in views]
    sound = [view.get("audio", np.zeros(16000, np.float32)) for view in views]
    return *events_of(np.concatenate(frames), np.concatenate(sound)), found[-1].end


def slid(path: Path) -> tuple[list[float], list[float], float]:
    """Returns the same as seen by a prediction."""
    held = "audio" if path.suffix in SOUND_FILES else "video"
    return joined_windows(slide({held: path}, SPEC, ("rgb", "audio"), APPLICATION, 1.0))


def streamed(path: Path, address: str) -> tuple[list[float], list[float], float]:
    """Returns the same as seen by a prediction from a URL."""
    source = LiveSource(Address(f"{address}/{path.name}"), Patience(max_lag=60, retries=0))
    return joined_windows(source.slide(SPEC, ("rgb", "audio"), APPLICATION, 1.0))


def compare(case: Case, way: str, found: tuple[list[float], list[float], float]) -> Row:
    """Returns the row of a case with flashes and beeps."""
    good, texts = True, []
    for planted, seen in ((case.pictures, found[0]), (case.sound, found[1])):
        # Sliding windows of a second end with the last whole second.
        planted = [event for event in planted if way == "pack" or event < found[2] - 0.05]
        good = good and len(planted) == len(seen)
        good = good and all(abs(a - b) <= WITHIN for a, b in zip(planted, seen, strict=False))
        texts.append((planted, seen))
    if way == "pack" and case.seconds is not None:
        good = good and abs(found[2] - case.seconds) <= WITHIN
    planted, seen = (
        " | ".join(",".join(f"{event:.2f}" for event in part[side]) for part in texts) for side in (0, 1)
    )
    length = f" ({case.seconds:.1f} s)" if case.seconds is not None else ""
    return Row(case.name, way, planted + length, f"{seen} ({found[2]:.2f} s)", good)


def timed_rows(cases: Iterator[Case], folder: Path, address: str) -> Iterator[Row]:
    """Yields the rows of all cases with flashes and beeps."""
    for number, case in enumerate(cases):
        place = folder / f"packed-{number}"
        place.mkdir()
        ways: dict[str, Callable[[], tuple[list[float], list[float], float]]] = {
            "pack": partial(packed, case.path, place),
            "slide": partial(slid, case.path),
            "url": partial(streamed, case.path, address),
        }
        for way in case.ways:
            try:
                yield compare(case, way, ways[way]())
            except Exception as error:
                yield Row(case.name, way, "readable", f"{type(error).__name__}: {error}", False)


def still_rows(folder: Path) -> Iterator[Row]:
    """Yields the rows of shapes, names, copies, flow, signals and depth."""
    for rows in (aspect_rows, name_rows, refresh_rows, flow_rows, signal_rows, depth_rows):
        try:
            yield from rows(folder)
        except Exception as error:
            yield Row(rows.__name__, "pack", "readable", f"{type(error).__name__}: {error}", False)


def aspect_rows(folder: Path) -> Iterator[Row]:
    """A circle on a screen, stored in pixels that are not square."""
    rows, columns = np.mgrid[:144, :180]
    for name, aspect in (("64:45", Fraction(64, 45)), ("3:4", Fraction(3, 4))):
        across = (columns - 90) * float(aspect)
        disc = (across**2 + (rows - 72) ** 2 < 40**2)[None, ..., None]
        frames = np.where(disc, 235, 16).astype(np.uint8).repeat(10, axis=0).repeat(3, axis=3)
        path = write(folder / f"aspect-{name.replace(':', '-')}.mp4", frames, [], aspect=aspect)
        settings = PackSettings(modalities=("rgb",), size=96, fps=FPS)
        (piece,) = read_recording({"video": path}, settings)
        seen = piece.streams["rgb"][0, ..., 0] > 128
        ratio = seen.any(axis=0).sum() / seen.any(axis=1).sum()
        yield Row(f"pixels of {name}", "pack", "circle 1.00 wide", f"{ratio:.2f}", abs(ratio - 1) < 0.05)


def name_rows(folder: Path) -> Iterator[Row]:
    """File names that FFmpeg reads as protocols, and a file that names another one."""
    source = folder / "names"
    source.mkdir()
    write(source / "a.mp4", flashes([0.4], 1), [])
    for number, name in enumerate(("concat:a.mp4", "file:a.mp4", "subfile:a.mp4", "a%02d.mp4", "pipe:0.mp4")):
        write(source / name, flashes([0.2 * (number % 2)], 1.2 + 0.2 * number), [])
    (source / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (source / "list.ts").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
    index = pack(source, folder / "names-out", SETTINGS, workers=1, max_rejected=0.5)
    durations = sorted(round(sample.duration, 2) for sample in index.samples)
    planted = [1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    good = np.allclose(durations, planted) if len(durations) == len(planted) else False
    yield Row("names like protocols", "pack", f"{planted}, 2 lists rejected", str(durations), bool(good))


def refresh_rows(folder: Path) -> Iterator[Row]:
    """A video without IDR pictures beyond the first must be encoded again: windows inside it would be wrong."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (SIZE // 8, 8, 3))
    frames = np.stack([np.roll(np.kron(noise, np.ones((8, 8, 1))), n, axis=1) for n in range(160)]).astype(np.uint8)
    source = folder / "refresh"
    source.mkdir()
    options = {"g": "8", "bf": "0", "x264-params": "intra-refresh=1:keyint=8"}
    write(source / "a.mp4", frames, [], options=options)
    index = pack(source, folder / "refresh-out", SETTINGS, workers=1)
    ((_, members),) = members_of(index)
    times = (np.arange(160) + 0.5) / FPS
    whole = decode_frames(members["rgb.mp4"], times, FPS, modality("rgb"), SIZE, (0.5, 0.5))
    single = np.concatenate(
        [
            decode_frames(members["rgb.mp4"], times[n : n + 1], FPS, modality("rgb"), SIZE, (0.5, 0.5))
            for n in range(160)
        ]
    )
    wrong = int((whole != single).any(axis=(1, 2, 3)).sum())
    problems = verify(folder / "refresh-out")
    yield Row("intra refresh", "pack", "0 frames differ", f"{wrong}; verify: {problems}", not wrong and not problems)


def flow_rows(folder: Path) -> Iterator[Row]:
    """No entry of flow repeats the one before it."""
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (50, 8, 12, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    path = write(folder / "moving.mp4", frames, [], options={"crf": "8"})
    settings = PackSettings(modalities=("rgb", "flow"), size=64, fps=FPS)
    (piece,) = read_recording({"video": path}, settings)
    flow = piece.streams["flow"]
    repeated = int((np.abs(np.diff(flow, axis=0)).max(axis=(1, 2, 3)) == 0).sum())
    found = f"{repeated} repeated, {len(flow)} of flow, {len(piece.streams['rgb'])} of rgb"
    good = not repeated and len(flow) == len(piece.streams["rgb"]) == 50
    yield Row("the end of flow", "pack", "0 repeated, 50, 50", found, good)


def signal_rows(folder: Path) -> Iterator[Row]:
    """Past its end a signal keeps its last value, in windows of shards and of predictions."""
    source = folder / "signal"
    source.mkdir()
    values = np.linspace(1, 2, 60)[:, None] * np.ones(6)
    np.save(source / "a.npy", values)
    settings = PackSettings(modalities=("inertial",), fps=FPS)
    (source / "labels.csv").write_text("inertial,label\na.npy,x\n")
    index = pack(source, folder / "signal-out", settings, workers=1)
    ((_, members),) = members_of(index)
    trained = decode_signal(members["inertial.npy"], modality("inertial"), 50.0, np.zeros(1), 100, 0.02)[0, -1, 0]
    spec = ClipSpec(2.0, FPS, SIZE, SIZE, FPS, 16000, 14.0, {"inertial": Statistics((0.0,) * 6, (1.0,) * 6)})
    (piece,) = slide({"inertial": source / "a.npy"}, spec, ("inertial",), Application(1, 2.0, 0.0, 0.0, 2.0))
    predicted = piece.views[0].streams["inertial"][-1, 0]
    good = abs(trained - 2) < 1e-5 and abs(predicted - 2) < 1e-5
    yield Row("past a signal's end", "both", "2.00, 2.00", f"{trained:.2f}, {predicted:.2f}", good)


def depth_rows(folder: Path) -> Iterator[Row]:
    """Unmeasured depth is not a distance."""
    source = folder / "depth"
    source.mkdir()
    depth = np.full((10, 48, 64), 2000, np.uint16)
    depth[:, :, :32] = 0
    np.save(source / "a.npy", depth)
    (source / "labels.csv").write_text("depth,depth_rate,label\na.npy,25,x\n")
    index = pack(source, folder / "depth-out", PackSettings(modalities=("depth",), fps=FPS), workers=1)
    mean = index.statistics["depth"].mean[0]
    yield Row("mean of half measured depth", "pack", "2000", f"{mean:.0f}", abs(mean - 2000) < 1)


class Quiet(SimpleHTTPRequestHandler):
    """A server without lines on the screen."""

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


def main() -> int:
    """Prints the table. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="an empty folder in which the recordings stay")
    parser.add_argument("--only", default="", help="only cases with this text in their names")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.keep or Path(made)
        (folder / "media").mkdir(parents=True)
        handler = partial(Quiet, directory=str(folder / "media"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cases = [*timing_cases(folder / "media"), *stream_cases(folder / "media")]
        chosen = iter([case for case in cases if given.only in case.name])
        rows, off = 0, 0
        print(f"{'case':<42} {'read by':<6} {'planted: pictures | sound':<44} found")
        timed = timed_rows(chosen, folder, f"http://127.0.0.1:{server.server_port}")
        for row in chain(timed, still_rows(folder)):
            rows, off = rows + 1, off + (not row.good)
            print(f"{row.case:<42} {row.way:<6} {row.planted:<44} {row.found}{'' if row.good else '   <-- OFF'}")
        server.shutdown()
    print(f"{off} of {rows} off")
    return int(off > 0)


if __name__ == "__main__":
    sys.exit(main())
