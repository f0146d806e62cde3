"""Recordings as they come from phones, broken recorders and by mistake, made on the fly."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from modalgate.shards.media.container_io import write_video
from numpy.typing import NDArray

from ...overwritten import overwrite_packets

RATE = 16000
# By name: the exit status of `predict`, whether there are windows, and what it says, a line on a fault or damage.
ODD_FILMS: dict[str, tuple[int, bool, str]] = {
    "no_sound.mp4": (0, True, ""),
    "variable_rate.mp4": (0, True, ""),
    "variable_rate.mkv": (0, True, ""),
    "rotated.mp4": (0, True, ""),
    "one_second.mp4": (0, True, ""),
    "one_frame.mp4": (0, True, ""),
    "still_end.mkv": (0, True, ""),
    "joined_late.mkv": (0, True, ""),
    "cut.mkv": (3, True, "is cut short: "),
    "cut_with_sound.mkv": (3, True, "is cut short: "),
    "zeroed_tail.mkv": (3, True, "is cut short: "),
    "damaged_middle.mp4": (0, True, "3 damaged packets were skipped, from 1."),
    "damaged_sound.mp4": (0, True, "5 damaged packets were skipped, from 0."),
    "damaged_tail.mp4": (3, True, "15 damaged packets were skipped, from 1."),
    "damaged_whole.mp4": (3, False, "none of its 3.0 s can be decoded"),
    "cut.mp4": (3, False, "index at the end of the MP4"),
    "header_alone.mkv": (3, False, "cannot be read: "),
    "empty.mp4": (3, False, "it is empty"),
    "text.mp4": (3, False, "it holds no media"),
}


def write_odd_films(folder: Path) -> None:
    """One film of each name in `ODD_FILMS`; the whole ones last three seconds or as long as they say."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (30, 48, 64, 3)).astype(np.uint8)
    sound = generator.normal(0, 0.2, 3 * RATE).astype(np.float32)
    write_video(folder / "no_sound.mp4", pictures, 10)
    write_video(folder / "one_second.mp4", pictures[:10], 10, sound=sound[:RATE], sound_codec="aac")
    write_video(folder / "one_frame.mp4", pictures[:1], 10)
    times = np.cumsum(generator.choice([0.02, 0.05, 0.2, 0.4], 30)).tolist()
    for name in ("variable_rate.mp4", "variable_rate.mkv"):
        write_timed(folder / name, pictures, times)
    write_timed(folder / "still_end.mkv", pictures[:12], [*(np.arange(11) / 10), 3.0], last=2.0)
    write_timed(folder / "joined_late.mkv", pictures, 5 + np.arange(30) / 10)
    write_timed(folder / "rotated.mp4", pictures, np.arange(30) / 10, rotation=90)
    tracks = {"sound": sound, "sound_codec": "aac"}
    write_video(folder / "cut.mkv", pictures, 10)
    write_video(folder / "cut.mp4", pictures, 10)
    write_video(folder / "cut_with_sound.mkv", pictures, 10, **tracks)
    write_video(folder / "zeroed_tail.mkv", pictures, 10, **tracks)
    damaged = {
        "middle": ("video", range(12, 15)),
        "sound": ("audio", range(10, 15)),
        "tail": ("video", range(15, 30)),
        "whole": ("video", range(30)),
    }
    for part, (kind, numbers) in damaged.items():
        write_video(folder / f"damaged_{part}.mp4", pictures, 10, **tracks)
        overwrite_packets(folder / f"damaged_{part}.mp4", kind, numbers)
    for name in ("cut.mkv", "cut.mp4", "cut_with_sound.mkv"):
        _rewrite(folder / name, lambda data: data[: len(data) // 2])
    _rewrite(folder / "zeroed_tail.mkv", lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    write_timed(folder / "header_alone.mkv", pictures[:0], [])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no film\n" * 50, encoding="utf-8")


def write_timed(
    path: Path,
    pictures: NDArray[np.uint8],
    times: Sequence[float] | NDArray[np.floating],
    rotation: int = 0,
    last: float = 0.0,
) -> None:
    """Pictures (T, H, W, 3) at `times` in seconds, the last shown for `last`, turned by `rotation` degrees."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        container.start_encoding()
        for time, picture in zip(times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        for packet in stream.encode(None):
            if last:
                packet.duration = round(last / packet.time_base)
            container.mux(packet)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))
