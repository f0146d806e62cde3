"""Frames at given times: the right ones, found without decoding everything."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from modalgate.shards.media import thumbnails as module
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.shards.media.thumbnails import stills

from ...overwritten import overwrite_packets

FPS = 10


def film(path: Path, options: dict[str, str] | None = None) -> Path:
    """Six seconds in which every picture is brighter than the one before."""
    levels = np.arange(60, dtype=np.uint8) * 4
    pictures = np.broadcast_to(levels[:, None, None, None], (60, 48, 64, 3)).copy()
    write_video(path, pictures, FPS, options=options)
    return path


def number(jpeg: bytes | None) -> int:
    """Which picture it is, by its brightness."""
    assert jpeg is not None
    return round(float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean()) / 4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_each_still_is_the_frame_shown_at_its_time(suffix: str, tmp_path: Path) -> None:
    path = film(tmp_path / f"film.{suffix}", {"g": "12", "bf": "2"})
    # In any order: on a frame, between frames, before the first and beyond the last.
    times = [4.5, 0.0, 2.34, 5.9, 1.19, 9.0]
    assert [number(jpeg) for jpeg in stills(path, times)] == [45, 0, 23, 59, 11, 59]


def test_times_count_from_the_first_frame(tmp_path: Path, delayed: Callable[[Path, Path, float], Path]) -> None:
    late = delayed(film(tmp_path / "film.mkv", {"g": "12", "bf": "0"}), tmp_path / "late.mkv", 3.0)
    assert [number(jpeg) for jpeg in stills(late, [0.0, 2.0])] == [0, 20]


def test_decoding_starts_at_the_key_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "film.mkv", {"g": "5"})
    frames: list[float] = []

    def counted(found: Iterator[tuple[float, object]], time: float) -> object:
        kept = list(found)
        frames.extend(time for time, _ in kept)
        return shown_at(iter(kept), time)

    shown_at = module._shown_at
    monkeypatch.setattr(module, "_shown_at", counted)
    assert number(stills(path, [5.52])[0]) == 55
    assert frames
    assert min(frames) >= 5.4


def test_stills_are_small_and_keep_their_aspect(tmp_path: Path) -> None:
    write_video(tmp_path / "wide.mkv", np.zeros((5, 480, 960, 3), np.uint8), FPS)
    (jpeg,) = stills(tmp_path / "wide.mkv", [0.2])
    assert jpeg is not None
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (240, 480, 3)


def test_a_damaged_frame_gives_the_one_before(tmp_path: Path) -> None:
    """Each packet is a key frame. The first, and those of 2 to 2.4 s, are overwritten."""
    path = film(tmp_path / "a.mp4", {"g": "1"})
    overwrite_packets(path, "video", (0, *range(20, 25)))
    # Times count from the first decodable picture.
    assert [number(jpeg) for jpeg in stills(path, (1.0, 2.1, 3.0))] == [11, 19, 31]


def test_sound_alone_has_no_stills(tmp_path: Path) -> None:
    write_wave(tmp_path / "sound.wav", np.zeros(1000, np.float32), 16000)
    with pytest.raises(ValueError, match="no pictures"):
        stills(tmp_path / "sound.wav", [0.0])


def test_pictures_of_joined_captures(tmp_path: Path) -> None:
    """`cat` of two transport streams whose clocks start alike. Every tenth of a second has its own gray level."""
    parts = []
    for number in range(2):
        levels = 20 + 4 * np.arange(20 * number, 20 * number + 20, dtype=np.uint8)
        frames = np.broadcast_to(levels[:, None, None, None], (20, 32, 32, 3)).copy()
        write_video(tmp_path / f"{number}.ts", frames, 10, options={"g": "5", "crf": "4"})
        parts.append((tmp_path / f"{number}.ts").read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    for time, picture in zip(
        (0.55, 1.55, 2.55, 3.55), stills(tmp_path / "a.ts", [0.55, 1.55, 2.55, 3.55]), strict=True
    ):
        assert picture is not None
        shown = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert shown is not None
        assert shown.mean() == pytest.approx(20 + 4 * int(10 * time), abs=3)


def test_a_disc_of_wide_pixels_is_round(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:96, :120]
    disc = ((columns - 60) * 64 / 45) ** 2 + (rows - 48) ** 2 < 30**2
    picture = np.where(disc[..., None], 235, 16).astype(np.uint8).repeat(3, axis=2)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 96, 120, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    (jpeg,) = stills(tmp_path / "a.mp4", [0.1])
    assert jpeg is not None
    seen = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE) > 128
    assert seen.any(axis=0).sum() / seen.any(axis=1).sum() == pytest.approx(1, abs=0.06)
