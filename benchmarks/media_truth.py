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
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
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
from planted_media import FPS, SIZE, SOUND_FILES, Case, flashes, stream_cases, timing_cases, write

WITHIN = 1 / FPS + 0.02
SETTINGS = PackSettings(modalities=("rgb", "audio"), size=SIZE, fps=FPS, samples_per_shard=1)
SPEC = ClipSpec(1.0, FPS, SIZE, SIZE, FPS, 16000, 14.0, {"rgb": Statistics((0.0,), (1.0,))}, packing=SETTINGS)
APPLICATION = Application(1, 1.0, 0.0, 0.0, 1.0)


@dataclass
class Row:
    """A line of the table."""

    case: str
    way: str
    planted: str
    found: str
    good: bool


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
