"""Reading and writing media: exact round trips, rotation and sizes."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from modalgate.shards.media.container_io import (
    FrameReader,
    allow_pixels,
    fit_short_side,
    iterate_frames,
    probe,
    write_video,
)


def read(source: Path | io.BytesIO, pixel_format: str = "rgb24", short_side: int | None = None) -> np.ndarray:
    reader = FrameReader(pixel_format, short_side)
    return np.stack([reader.read(frame) for _, frame in iterate_frames(source)])


def test_h264_round_trip(drifting: Callable) -> None:
    frames, target = drifting(6, 48, 64), io.BytesIO()
    write_video(target, frames, 12.5, container_format="mp4", options={"crf": "10"})
    back = read(io.BytesIO(target.getvalue()))
    assert back.shape == frames.shape
    # Chroma has half the resolution: pixels are compared by luminance, and colours by their mean.
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(back @ weights - frames @ weights).mean() < 1.5
    np.testing.assert_allclose(back.mean(axis=(0, 1, 2)), frames.mean(axis=(0, 1, 2)), atol=2.0)
    facts = probe(io.BytesIO(target.getvalue()))
    assert (facts.width, facts.height, facts.fps, facts.pixel_format) == (64, 48, 12.5, "yuv420p")
    assert facts.video_seconds == pytest.approx(6 / 12.5)
    assert (facts.has_video, facts.has_sound) == (True, False)


def test_frame_times(drifting: Callable, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", drifting(7), 30000 / 1001)
    times = [time for time, _ in iterate_frames(tmp_path / "a.mp4")]
    np.testing.assert_allclose(times, np.arange(7) * 1001 / 30000, atol=1e-4)


def test_depth_round_trip_is_exact(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 65536, (5, 31, 43)).astype(np.uint16)
    write_video(tmp_path / "d.mkv", depth, 15, codec="ffv1", pixel_format="gray16le")
    np.testing.assert_array_equal(read(tmp_path / "d.mkv", "gray16le"), depth)
    np.testing.assert_array_equal(read(tmp_path / "d.mkv", "gray16le", 32), depth)
    shrunk = read(tmp_path / "d.mkv", "gray16le", 16)
    assert shrunk.shape == (5, 16, 22)
    assert all(np.isin(small, whole).all() for small, whole in zip(shrunk, depth, strict=True))


def test_equal_input_gives_equal_bytes(drifting: Callable, tmp_path: Path) -> None:
    depth = np.zeros((3, 16, 16), np.uint16)
    for name in ("one", "two"):
        write_video(tmp_path / f"{name}.mp4", drifting(4), 10)
        write_video(tmp_path / f"{name}.mkv", depth, 10, codec="ffv1", pixel_format="gray16le")
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert (tmp_path / "one.mkv").read_bytes() == (tmp_path / "two.mkv").read_bytes()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    """A phone stores the sensor's picture and an angle. Displayed, the bright corner is where it was seen."""
    upright = np.full((48, 64, 3), 40, np.uint8)
    upright[:12, :16] = 220
    turns = degrees // 90
    stored = np.ascontiguousarray(np.rot90(upright, -turns))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *stored.shape[:2], "yuv420p"
        stream.set_display_rotation(degrees)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored)))
        container.mux(stream.encode(None))
    shown = read(tmp_path / "a.mp4")
    assert shown.shape[1:3] == (48, 64)
    assert np.abs(shown.astype(int) - upright).mean() < 4


def test_sizes() -> None:
    for size, short_side, expected in (
        ((1920, 1080), 112, (200, 112)),
        ((1080, 1920), 112, (112, 200)),
        ((64, 48), 112, (64, 48)),
        ((65, 49), None, (64, 48)),
        ((640, 480), 112, (150, 112)),
    ):
        fitted = fit_short_side(*size, short_side)
        assert fitted[0] % 2 == fitted[1] % 2 == 0
        assert all(abs(a - b) <= 2 for a, b in zip(fitted, expected, strict=True))


def test_small_pictures_are_not_magnified(drifting: Callable, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", drifting(3, 48, 64), 10)
    assert read(tmp_path / "a.mp4", short_side=112).shape == (3, 48, 64, 3)


@pytest.mark.parametrize(
    "name", ["concat:a.mp4", "file:a.mp4", "subfile,,start,0,end,9,,:a.mp4", "a%02d.mp4", "-i.mp4"]
)
def test_a_file_is_opened_as_a_file(
    tmp_path: Path, drifting: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Beside `a.mp4` with 5 frames lies a file with 9, whose name FFmpeg would read as a protocol or pattern."""
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"), drifting(5), 10)
    write_video(Path(name), drifting(9), 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.mp4", name])
    for source in (Path(name), name, tmp_path / name):
        assert len(list(iterate_frames(source))) == 9
        assert probe(source).video_seconds == pytest.approx(0.9)


def test_the_default_video_stream_is_read(tmp_path: Path) -> None:
    """The second of two is marked. The third is larger."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = []
        for number, side in enumerate((32, 48, 64)):
            stream = container.add_stream("libx264", rate=10)
            stream.height = stream.width = side
            stream.pix_fmt = "yuv420p"
            stream.disposition = Disposition.default if number == 1 else Disposition(0)
            streams.append(stream)
        for stream in streams:
            for _ in range(3):
                picture = np.zeros((stream.height, stream.width, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode(None))
    assert probe(tmp_path / "a.mkv").width == 48
    assert read(tmp_path / "a.mkv").shape == (3, 48, 48, 3)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(3, 4), Fraction(1, 500)])
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, turned: bool) -> None:
    """A disc on the screen stays one, also of a phone held sideways. An absurd aspect is not believed."""
    shown = float(aspect) if aspect > 0.1 else 1.0
    rows, columns = np.mgrid[:96, :120]
    disc = ((columns - 60) * shown) ** 2 + (rows - 48) ** 2 < 30**2
    picture = np.where(disc[..., None], 235, 16).astype(np.uint8).repeat(3, axis=2)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 96, 120, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if turned:
            stream.set_display_rotation(90)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    facts = probe(tmp_path / "a.mp4")
    assert facts.aspect == pytest.approx(shown)
    frames = list(iterate_frames(tmp_path / "a.mp4"))
    for side in (None, 64):
        seen = FrameReader("rgb24", side, aspect=facts.aspect).read(frames[0][1])[..., 0] > 128
        high, wide = seen.any(axis=1).sum(), seen.any(axis=0).sum()
        assert wide / high == pytest.approx(1, abs=0.06)
    depth = np.where(disc, 900, 300).astype(np.uint16)
    seen = FrameReader("gray16le", 64, aspect=shown).read(depth) > 600
    assert seen.any(axis=0).sum() / seen.any(axis=1).sum() == pytest.approx(1, abs=0.08)


def test_what_a_cut_without_encoding_promises(tmp_path: Path, drifting: Callable) -> None:
    """The MP4 stores all 40 frames, from the key frame on. Its edit list shows those from 1.3 s on."""
    write_video(tmp_path / "a.mp4", drifting(40), 10, options={"g": "50", "bf": "2"})
    with av.open(str(tmp_path / "a.mp4")) as whole, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                shift = round(1.3 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                cut.mux(packet)
    assert probe(tmp_path / "cut.mp4").video_seconds == pytest.approx(2.7, abs=0.1)
    times = [time for time, _ in iterate_frames(tmp_path / "cut.mp4")]
    assert len(times) == 27
    assert times[-1] - times[0] == pytest.approx(2.6)


@pytest.mark.parametrize("changed", [False, True])
def test_pictures_beyond_the_limit_are_not_decoded(
    changed: bool, drifting: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the picture grows in the middle of the video."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        large = io.BytesIO()
        write_video(large, drifting(1, 480, 640), 10, codec="mjpeg", pixel_format="yuvj420p", container_format="avi")
        with av.open(large) as other:
            grown = bytes(next(packet for packet in other.demux(video=0) if packet.size))
        for number, picture in enumerate(drifting(4, 48, 64)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
            for packet in stream.encode(frame):
                if changed and number == 2:
                    replaced = av.Packet(grown)
                    replaced.stream, replaced.pts, replaced.dts = stream, packet.pts, packet.dts
                    replaced.time_base, packet = packet.time_base, replaced
                container.mux(packet)
    assert len(list(iterate_frames(path))) == 4
    monkeypatch.setattr("modalgate.shards.media.container_io.MOST_PIXELS", 64 * 48)
    try:
        allow_pixels(1)
        if changed:
            with pytest.raises((ValueError, av.FFmpegError)):
                list(iterate_frames(path))
        else:
            assert len(list(iterate_frames(path))) == 4
        allow_pixels(640 * 480)
        assert len(list(iterate_frames(path))) == 4
    finally:
        monkeypatch.undo()
        allow_pixels(1)


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile secret.ts\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    ],
)
def test_a_playlist_opens_no_other_file(content: str, drifting: Callable, tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", drifting(10), 10)
    (tmp_path / "film.mp4").write_text(content, encoding="utf-8")
    (tmp_path / "film.m3u8").write_text(content, encoding="utf-8")
    for name in ("film.mp4", "film.m3u8"):
        with pytest.raises(ValueError, match=r"format is not accepted|holds no media"):
            probe(tmp_path / name)
        with pytest.raises((ValueError, av.FFmpegError)):
            probe(io.BytesIO((tmp_path / name).read_bytes()))
