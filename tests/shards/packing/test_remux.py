"""A fitting video is copied frame by frame; one that differs in any respect is encoded."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from modalgate.shards.clips.decode import decode_frames
from modalgate.shards.media.container_io import FrameReader, iterate_frames, write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import modality
from modalgate.shards.packing.pack import pack
from modalgate.shards.packing.remux import copy_if_fitting

SETTINGS = PackSettings(modalities=("rgb",), size=32, fps=10.0)
FITTING = {"crf": "18", "g": "16", "bf": "0"}


def write(path: Path, frames: np.ndarray, rate: float = 10.0, **changes: Any) -> Path:
    options = FITTING | changes.pop("options", {})
    write_video(path, frames, rate, options=options, **changes)
    return path


def pixels(source: Path | bytes) -> np.ndarray:
    reader = FrameReader("rgb24")
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    return np.stack([reader.read(frame) for _, frame in iterate_frames(opened)])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_copy_is_exact(tmp_path: Path, drifting: Callable, beep: Callable, suffix: str) -> None:
    """From a file with sound: the same pictures to the last bit, at the same times, and an MP4 without sound."""
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / f"a.{suffix}", drifting(35, 32, 48), sound=beep(3.5), sound_codec="aac")
    index = pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1)
    offset, size = index.samples[0].members["rgb.mp4"]
    data = (tmp_path / "out" / index.shards[0].name).read_bytes()[offset : offset + size]
    np.testing.assert_array_equal(pixels(data), pixels(path))
    np.testing.assert_allclose([time for time, _ in iterate_frames(io.BytesIO(data))], np.arange(35) / 10, atol=1e-6)
    with av.open(io.BytesIO(data)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    times = np.arange(35) / 10 + 0.05
    fast = decode_frames(data, times, 10.0, modality("rgb"), 32, (0.0, 0.0)).transpose(0, 2, 3, 1)
    assert np.abs(fast.astype(int) - pixels(path)[:, :, :32]).max() <= 6
    assert copy_if_fitting(path, SETTINGS, 35) == data


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 12.5},
        {"options": {"g": "40"}},
        {"options": {"bf": "2"}},
        {"codec": "mpeg4"},
        {"pixel_format": "yuv444p"},
        {"options": {"x264-params": "fullrange=on:colormatrix=bt709"}},
        {"options": {"x264-params": "colormatrix=bt709"}},
    ],
    ids=["rate", "key frames", "reordered", "codec", "chroma", "full range", "matrix"],
)
def test_what_does_not_fit(tmp_path: Path, drifting: Callable, changes: dict[str, Any]) -> None:
    path = write(tmp_path / "a.mp4", drifting(35, 32, 48), **changes)
    assert copy_if_fitting(path, SETTINGS, 35) is None


def test_other_sizes_and_counts(tmp_path: Path, drifting: Callable) -> None:
    path = write(tmp_path / "a.mp4", drifting(20, 48, 64))
    assert copy_if_fitting(path, SETTINGS, 20) is None
    assert copy_if_fitting(path, PackSettings(size=48, fps=10.0), 19) is None
    assert copy_if_fitting(path, PackSettings(size=48, fps=10.0), 20) is not None


def test_pieces_of_a_fitting_file_are_encoded(tmp_path: Path, drifting: Callable) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.mp4", drifting(35, 32, 48))
    settings = PackSettings(modalities=("rgb",), size=32, fps=10.0, clip_seconds=2.0)
    index = pack(tmp_path / "in", tmp_path / "out", settings, workers=1)
    assert sorted(sample.duration for sample in index.samples) == [1.5, 2.0]


def turning(frames: int = 60) -> np.ndarray:
    """A picture that is shifted every frame, so that a frame refers to all of the one before."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(noise, 2 * number, axis=1) for number in range(frames)]).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("parameters", ["intra-refresh=1:keyint=8", "open-gop=1:keyint=8:bframes=0:scenecut=0"])
def test_key_frames_that_need_frames_before_them_are_not_copied(tmp_path: Path, suffix: str, parameters: str) -> None:
    """Each frame of the packed video is the same, whether decoding starts at the beginning or at its key frame."""
    (tmp_path / "in").mkdir()
    options = {"g": "8", "x264-params": parameters}
    path = write(tmp_path / "in" / f"a.{suffix}", turning(), options=options)
    if "refresh" in parameters:
        assert copy_if_fitting(path, SETTINGS, 60) is None
    index = pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1)
    offset, size = index.samples[0].members["rgb.mp4"]
    data = (tmp_path / "out" / index.shards[0].name).read_bytes()[offset : offset + size]
    times = np.arange(60) / 10 + 0.05
    whole = decode_frames(data, times, 10.0, modality("rgb"), 32, (0.0, 0.0))
    for number in range(60):
        single = decode_frames(data, times[number : number + 1], 10.0, modality("rgb"), 32, (0.0, 0.0))
        np.testing.assert_array_equal(single[0], whole[number])


def test_a_video_with_pixels_that_are_not_square_is_not_copied(tmp_path: Path, drifting: Callable) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options=FITTING)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for picture in drifting(20, 32, 48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    assert copy_if_fitting(tmp_path / "a.mp4", SETTINGS, 20) is None
