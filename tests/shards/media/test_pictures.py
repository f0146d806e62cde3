"""Pictures from frame folders, arrays and videos, and bounds that hold before memory is filled."""

import resource
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pytest
from modalgate.shards.media.container_io import FrameReader, write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.media.pictures import read_pictures
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

SETTINGS = PackSettings(size=32, fps=10.0)


def read(path: Path, kind: str = "rgb24", settings: PackSettings = SETTINGS, rate: float | None = 10.0) -> NDArray:
    reader = FrameReader(kind, settings.size, settings.depth_scale)
    return np.concatenate(list(read_pictures(path, reader, settings, rate)))


def write_frames(folder: Path, frames: NDArray, name: str = "frame{}.png") -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        stored = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if frame.ndim == 3 else frame
        assert cv2.imwrite(str(folder / name.format(number)), stored)
    return folder


def test_png_frames_are_exact_and_in_order(tmp_path: Path, drifting: Callable) -> None:
    """frame10 comes after frame9."""
    frames = drifting(12, 32, 48)
    np.testing.assert_array_equal(read(write_frames(tmp_path / "a", frames)), frames)


def test_jpeg_frames(tmp_path: Path, drifting: Callable) -> None:
    frames = drifting(5, 32, 48)
    back = read(write_frames(tmp_path / "a", frames, "{:05d}.jpg"))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 6


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photographs_orientation(tmp_path: Path, orientation: int) -> None:
    """A camera held on its side stores the sensor's picture and its rotation."""
    upright = np.full((32, 48, 3), 40, np.uint8)
    upright[:8, :12] = 220
    stored = np.rot90(upright, {1: 0, 3: 2, 6: 1, 8: -1}[orientation])
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(2):
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a" / f"{number}.jpg", exif=exif, quality=95)
    shown = read(tmp_path / "a")
    assert shown.shape[1:3] == (32, 48)
    assert np.abs(shown.astype(int) - upright).mean() < 4


def test_depth_frames_are_exact(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 65536, (5, 32, 40)).astype(np.uint16)
    np.testing.assert_array_equal(read(write_frames(tmp_path / "a", depth), "gray16le"), depth)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_eight_bit_depth(tmp_path: Path, scale: float) -> None:
    """Gray PNG and gray video: levels times millimetres per level."""
    levels = np.random.default_rng(0).integers(0, 256, (4, 32, 40)).astype(np.uint8)
    settings = PackSettings(size=32, fps=10.0, depth_scale=scale)
    write_video(tmp_path / "a.mkv", levels, 10, codec="ffv1", pixel_format="gray")
    for path in (write_frames(tmp_path / "a", levels), tmp_path / "a.mkv"):
        np.testing.assert_array_equal(read(path, "gray16le", settings), levels.astype(np.uint16) * int(scale))


def test_twelve_bit_depth(tmp_path: Path) -> None:
    """The container has 12 bits, and the levels keep their values."""
    levels = np.random.default_rng(0).integers(0, 4096, (3, 32, 40)).astype(np.uint16)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 40, "gray12le"
        for picture in levels:
            frame = av.VideoFrame(40, 32, "gray12le")
            plane = frame.planes[0]
            padded = np.zeros((32, plane.line_size // 2), np.uint16)
            padded[:, :40] = picture
            plane.update(padded.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_array_equal(read(tmp_path / "a.mkv", "gray16le"), levels)


def test_depth_arrays(tmp_path: Path) -> None:
    """NPY has time first, MATLAB last. Metres as floats become millimetres, and unmeasured values become 0."""
    depth = np.random.default_rng(0).integers(0, 8000, (6, 32, 40)).astype(np.uint16)
    np.save(tmp_path / "a.npy", depth)
    savemat(tmp_path / "a.mat", {"d_depth": np.moveaxis(depth, 0, -1).astype(np.int16)})
    for name in ("a.npy", "a.mat"):
        np.testing.assert_array_equal(read(tmp_path / name, "gray16le"), depth)
    metres = depth / np.float32(1000)
    metres[0, 0, 0] = np.nan
    np.save(tmp_path / "metres.npy", metres)
    depth[0, 0, 0] = 0
    settings = PackSettings(size=32, fps=10.0, depth_scale=1000.0)
    np.testing.assert_array_equal(read(tmp_path / "metres.npy", "gray16le", settings), depth)


def test_rates(tmp_path: Path, drifting: Callable) -> None:
    """30 frames at 30 per second are packed as 10. Without a rate they are rejected."""
    frames = drifting(30, 32, 48)
    folder = write_frames(tmp_path / "a", frames)
    np.testing.assert_array_equal(read(folder, rate=30.0), frames[::3])
    with pytest.raises(ValueError, match=r"'a' has no frame rate: give --rate, or a column such as video_rate"):
        read(folder, rate=None)


def test_frames_of_different_sizes(tmp_path: Path, drifting: Callable) -> None:
    folder = write_frames(tmp_path / "a", drifting(3, 32, 48))
    assert cv2.imwrite(str(folder / "frame3.png"), np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"'a' changes its size from \(32, 48, 3\) to \(32, 64, 3\)"):
        read(folder)
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="'b' holds no JPEG or PNG frames"):
        read(tmp_path / "b")
    single = write_frames(tmp_path / "c", drifting(1, 32, 48))
    with pytest.raises(ValueError, match="'c' has 1 frame"):
        read(single)
    (single / "frame1.png").write_bytes(b"nothing")
    with pytest.raises((ValueError, av.FFmpegError)):
        read(single)


def bomb(path: Path, side: int) -> Path:
    """A PNG of side x side black pixels: a thousandth of the memory it asks for."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(3 * side + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def test_a_picture_bomb(tmp_path: Path) -> None:
    """430 MB in half a megabyte are rejected by their header, with 150 MB of memory available."""
    first = bomb(tmp_path / "a" / "0.png", 12_000)
    shutil.copy(first, tmp_path / "a" / "1.png")
    assert (tmp_path / "a" / "0.png").stat().st_size < 5e5
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 150_000_000, before[1]))
    try:
        with pytest.raises(ValueError, match="cannot be decoded, or of more than 33177600 pixels"):
            read(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_strip_that_would_stay_large_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", np.zeros((4, 8, 136), np.uint8), 10, codec="ffv1", pixel_format="gray")
    with pytest.raises(ValueError, match="it has pictures of 136 x 8 pixels: one side is over 16 times the other"):
        read(tmp_path / "a.mkv")
    write_video(tmp_path / "b.mkv", np.zeros((4, 8, 128), np.uint8), 10, codec="ffv1", pixel_format="gray")
    assert read(tmp_path / "b.mkv").shape[1:3] == (8, 128)


def test_too_many_pixels_or_seconds(tmp_path: Path, drifting: Callable) -> None:
    write_video(tmp_path / "a.mkv", drifting(20, 32, 48), 10)
    with pytest.raises(ValueError, match=r"'a\.mkv' has pictures of 48 x 32 pixels, more than 1000 \(--max-pixels\)"):
        read(tmp_path / "a.mkv", settings=PackSettings(max_pixels=1000))
    with pytest.raises(ValueError, match=r"'a\.mkv' lasts 2 s, more than 1.5 \(--max-seconds\)"):
        read(tmp_path / "a.mkv", settings=PackSettings(max_seconds=1.5))


def write_late(path: Path, frames: NDArray, late: int) -> Path:
    """Ten frames, the last at `late` tenths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")
            frame.pts = number if number < 9 else late
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_time_stamp_far_ahead(tmp_path: Path, drifting: Callable) -> None:
    """A time stamp a year later does not give a year of copies of the frame before."""
    path = write_late(tmp_path / "a.mkv", drifting(10, 32, 48), 10 * 86400 * 365)
    with pytest.raises(ValueError, match=r"'a\.mkv' lasts 3.15\d*e\+07 s, more than 21600"):
        read(path)


def test_a_time_stamp_beyond_the_header(tmp_path: Path, drifting: Callable) -> None:
    """Matroska's duration is overwritten with one second, and the last frame's time is half an hour."""
    path = write_late(tmp_path / "a.mkv", drifting(10, 32, 48), 10 * 1800)
    data = path.read_bytes()
    place = data.index(b"\x44\x89\x88") + 3
    assert 1_800_000 <= struct.unpack(">d", data[place : place + 8])[0] <= 1_800_200
    path.write_bytes(data[:place] + struct.pack(">d", 1000.0) + data[place + 8 :])
    with pytest.raises(ValueError, match=r"'a\.mkv' has a frame at 1800 s but lasts 1 s"):
        read(path)


@pytest.mark.parametrize("fps", [10.0, 15.0, 25.0])
def test_a_frame_holds_until_the_next(tmp_path: Path, fps: float) -> None:
    """One frame a second, then ten. Each output frame shows what a player shows then, within half an output frame."""
    stamps = [0.0, 1.0, 2.0, *(3.0 + n / 10 for n in range(10))]
    levels = 20 + 15 * np.arange(len(stamps))
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for stamp, level in zip(stamps, levels.tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = round(stamp * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = read(tmp_path / "a.mkv", settings=PackSettings(size=32, fps=fps))[..., 0].mean(axis=(1, 2))
    for number, level in enumerate(found.tolist()):
        seconds = number / fps
        near = [
            levels[np.searchsorted(stamps, seconds + off, side="right") - 1]
            for off in (max(-0.5 / fps, -seconds), 0, 0.5 / fps)
        ]
        assert min(abs(level - one) for one in near) < 3, seconds


def test_frames_whose_names_look_like_patterns(tmp_path: Path, drifting: Callable) -> None:
    frames = drifting(4, 32, 48)
    folder = write_frames(tmp_path / "a", frames, "f%03d-{}.png")
    np.testing.assert_array_equal(read(folder), frames)


def test_a_wide_aspect_counts_as_pixels(tmp_path: Path, drifting: Callable) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4)
        for picture in drifting(5, 32, 48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="pictures of 192 x 32 pixels"):
        read(tmp_path / "a.mp4", settings=PackSettings(max_pixels=32 * 48))
    assert read(tmp_path / "a.mp4").shape == (5, 32, 192, 3)


def test_a_time_stamp_far_ahead_of_the_picture_before(tmp_path: Path, drifting: Callable) -> None:
    """Within the longest duration too, a day without a picture is a wrong time stamp."""
    path = write_late(tmp_path / "a.mkv", drifting(10, 32, 48), 10 * 86400)
    with pytest.raises(ValueError, match=r"'a\.mkv' has no picture from 1 to 86400 s"):
        read(path, settings=replace(SETTINGS, max_seconds=float("inf")))
