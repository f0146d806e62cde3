"""A recording on one clock: constant rate, pieces, sound in its place, and misleading files."""

import csv
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from modalgate.shards.index.shard_summary import summarise
from modalgate.shards.media.container_io import FrameReader, iterate_frames, write_video, write_wave
from modalgate.shards.media.damaged_packets import Damage
from modalgate.shards.media.flow import compute_flow
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import declare, plain_modality
from modalgate.shards.packing.encode import encode_clip
from modalgate.shards.packing.pack import pack
from modalgate.shards.packing.recording import loudness, read_recording, read_signal
from modalgate.shards.packing.sources import Source
from scipy.io import savemat


def levels(count: int) -> np.ndarray:
    """Frames that encode their number n as gray level 10 + 4 n."""
    return np.broadcast_to(
        (10 + 4 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, 32, 32, 3)
    ).copy()


def numbers(frames: np.ndarray) -> list[int]:
    return np.round((frames.mean(axis=(1, 2, 3)) - 10) / 4).astype(int).tolist()


def settings(*modalities: str, **changes: float) -> PackSettings:
    return PackSettings(modalities=modalities, size=32, **changes)  # pyright: ignore


@pytest.mark.parametrize(("source", "target"), [(30, 15), (25, 15), (10, 25), (30000 / 1001, 15), (24, 24)])
def test_constant_rate_takes_the_nearest_frame(tmp_path: Path, source: float, target: float) -> None:
    write_video(tmp_path / "a.mp4", levels(50), source, options={"crf": "4"})
    (piece,) = read_recording({"video": tmp_path / "a.mp4"}, settings("rgb", fps=target))
    count = len(piece.streams["rgb"])
    assert count == pytest.approx(50 / source * target, abs=1)
    assert piece.duration == pytest.approx(count / target)
    grid = np.minimum(np.arange(count) / target * source, 49)
    behind = grid - np.array(numbers(piece.streams["rgb"]))
    # A frame that stays longer than an output frame holds until half of one before the next frame.
    assert behind.max() <= max(0.5, 1 - 0.5 * source / target) + 0.02
    assert behind.min() >= -0.5 - 0.02


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_matching_rate_passes_every_frame_once(tmp_path: Path, suffix: str) -> None:
    write_video(tmp_path / f"a.{suffix}", levels(38), 15, options={"crf": "4"})
    (piece,) = read_recording({"video": tmp_path / f"a.{suffix}"}, settings("rgb", fps=15.0))
    assert numbers(piece.streams["rgb"]) == list(range(38))


def test_long_video_is_cut(tmp_path: Path, beep: Callable) -> None:
    write_video(
        tmp_path / "a.mp4", levels(50), 10, sound=beep(5.0, 2.2, 0.1), sound_codec="aac", options={"crf": "4"}
    )
    wanted = settings("rgb", "flow", "audio", fps=10.0, clip_seconds=2.0)
    pieces = list(read_recording({"video": tmp_path / "a.mp4"}, wanted))
    assert [numbers(piece.streams["rgb"]) for piece in pieces] == [
        list(range(20)), list(range(20, 40)), list(range(40, 50))
    ]  # fmt: skip
    assert [(piece.start, piece.duration) for piece in pieces] == [(0.0, 2.0), (2.0, 2.0), (4.0, 1.0)]
    assert ["audio" in piece.streams for piece in pieces] == [False, True, False]
    assert np.flatnonzero(np.abs(pieces[1].streams["audio"]) > 0.2)[0] / 16000 == pytest.approx(0.2, abs=0.01)
    assert all(len(piece.streams["flow"]) == len(piece.streams["rgb"]) for piece in pieces)


@pytest.mark.parametrize("b_frames", ["0", "2"])
@pytest.mark.parametrize("fps", [24.0, 25.0, 30000 / 1001, 30.0])
def test_flash_and_beep_coincide(
    tmp_path: Path, beep: Callable, delayed: Callable, fps: float, b_frames: str
) -> None:
    """Within one packed frame, though the container starts 0.5 s late and the codec reorders frames."""
    frames = np.full((round(3 * fps), 32, 32, 3), 20, np.uint8)
    flash = round(1.5 * fps)
    frames[flash : flash + 3] = 235
    sound = beep(3.0, flash / fps, 0.1, 44100)
    plain = tmp_path / "plain.mp4"
    options = {"bf": b_frames, "crf": "10"}
    write_video(plain, frames, fps, sound=sound, sample_rate=44100, sound_codec="aac", options=options)
    for path in (plain, delayed(plain, tmp_path / "late.mkv", 0.5)):
        (piece,) = read_recording({"video": path}, settings("rgb", "audio", fps=fps))
        bright = np.flatnonzero(piece.streams["rgb"].mean(axis=(1, 2, 3)) > 128)[0] / fps
        loud = np.flatnonzero(np.abs(piece.streams["audio"]) > 0.2)[0] / 16000
        assert bright == pytest.approx(flash / fps, abs=0.5 / fps)
        assert loud == pytest.approx(bright, abs=0.5 / fps)
        assert len(piece.streams["audio"]) == round(piece.duration * 16000)


def test_sibling_sound(tmp_path: Path, beep: Callable) -> None:
    write_video(tmp_path / "a.mp4", levels(20), 10)
    write_wave(tmp_path / "a.wav", beep(5.0, 1.0, 0.2), 16000)
    (piece,) = read_recording(
        {"video": tmp_path / "a.mp4", "audio": tmp_path / "a.wav"}, settings("rgb", "audio", fps=10.0)
    )
    assert len(piece.streams["audio"]) == 32000
    assert np.flatnonzero(np.abs(piece.streams["audio"]) > 0.2)[0] / 16000 == pytest.approx(1.0, abs=0.005)


def test_loudness() -> None:
    sine = np.sin(np.linspace(0, 200 * np.pi, 16000)).astype(np.float32)
    assert loudness(sine) == pytest.approx(-3.01, abs=0.01)
    assert loudness(0.001 * sine) == pytest.approx(-63.01, abs=0.01)
    assert loudness(np.zeros(10, np.float32)) == -np.inf


def test_quiet_track_is_absent(tmp_path: Path, beep: Callable) -> None:
    write_video(tmp_path / "a.mkv", levels(20), 10, sound=0.001 * beep(2.0))
    files = {"video": tmp_path / "a.mkv"}
    (quiet,) = read_recording(files, settings("rgb", "audio", fps=10.0))
    assert "audio" not in quiet.streams
    (kept,) = read_recording(files, settings("rgb", "audio", fps=10.0, silence_db=-90.0))
    assert "audio" in kept.streams


@pytest.mark.parametrize("header", [True, False])
def test_signal_csv(tmp_path: Path, header: bool) -> None:
    values = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    lines = [",".join(f"{value!r}" for value in row) for row in values.tolist()]
    (tmp_path / "a.csv").write_text("\n".join(["ax,ay,az,gx,gy,gz"] * header + lines) + "\n")
    read, rate = read_signal(tmp_path / "a.csv", "inertial")
    np.testing.assert_array_equal(read, values)
    assert rate == 50.0


def test_signals_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((120, 6)))
    (piece,) = read_recording({"inertial": tmp_path / "a.npy"}, settings("inertial"))
    assert piece.streams["inertial"].shape == (120, 6)
    assert piece.duration == pytest.approx(2.4)


@pytest.mark.parametrize(
    "values", [np.ones((5, 4)), np.ones(6), np.full((5, 6), np.nan), np.full((5, 6), 1e300), np.ones((0, 6))]
)
def test_bad_signals(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=r"a\.npy"):
        read_signal(tmp_path / "a.npy", "inertial")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1,2,3,4,5,6\n" * 3, (3, 6)),
        ("ax,ay,az,gx,gy,gz\n1,2,3,4,5,6\n\n1e2, 2,3,4,5,-6\n", (2, 6)),
        ("\ufeff1,2,3,4,5,6\r\n", (1, 6)),
        ("1,2,3,4,5,6\nax,ay,az,gx,gy,gz\n", None),
        ("1,2,3,4,5\n1,2,3,4,5\n", None),
        ("1,2,3,4,5,6\n1,2,3\n", None),
        ("1,2,3,4,5,nan\n", None),
        ("1,2,3,4,5,inf\n", None),
        ("1,2,3,4,5,1e99\n", None),
        ("ax,ay\n", None),
        ("", None),
        ('"' + "1," * 1000, None),
        ("1" * 200_000, None),
        ("\0" * 100, None),
    ],
)
def test_a_table_is_read_row_by_row(text: str, shape: tuple[int, int] | None, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    if shape is None:
        with pytest.raises((ValueError, csv.Error)):
            read_signal(tmp_path / "a.csv", "inertial")
    else:
        values, rate = read_signal(tmp_path / "a.csv", "inertial")
        assert (values.shape, values.dtype, rate) == (shape, np.float32, 50)
        assert values[0].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("form", ["csv", "npy", "mat"])
def test_a_signal_beyond_the_longest_is_not_read_as_a_whole(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    if form == "csv":  # beyond the bound stands what no reader takes
        path.write_text("1,2,3,4,5,6\n" * 200 + "torn,row\n")
    elif form == "npy":
        np.save(path, np.ones((200, 6)))
    else:
        savemat(path, {"a": np.ones((200, 6))})
    with pytest.raises(ValueError, match=r"a\.\w+' (lasts more than 2 s|.* at most 100 rows) \(--max"):
        read_signal(path, "inertial", max_seconds=2.0)


def test_measured_flow_stays_on_the_disk(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", np.zeros((20, 32, 48, 3), np.uint8), 10.0)
    flow = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (50, 2, 1000, 1000))  # 400 MB, sparse
    del flow
    files = {"video": tmp_path / "a.mkv", "flow": tmp_path / "a.npy"}
    tracemalloc.start()
    with pytest.raises(ValueError, match="its flow"):
        list(read_recording(files, settings("rgb", "flow", fps=10.0)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def test_a_long_table_takes_little_more_than_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2,3,4,5,6\n" * 200_000)
    tracemalloc.start()
    values, _ = read_signal(tmp_path / "a.csv", "inertial")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # In double precision, grown in steps, and in single precision. As text it took 100 MB.
    assert peak < 5 * values.nbytes


def test_measured_flow_is_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(10), 10)
    given = np.random.default_rng(0).normal(size=(10, 2, 32, 32)).astype(np.float16)
    np.save(tmp_path / "a.npy", given)
    files = {"video": tmp_path / "a.mp4", "flow": tmp_path / "a.npy"}
    (piece,) = read_recording(files, settings("rgb", "flow", fps=10.0))
    np.testing.assert_array_equal(piece.streams["flow"], given.astype(np.float32))
    with pytest.raises(ValueError, match="its flow has 10 frames, its packed video 5"):
        list(read_recording(files, settings("rgb", "flow", fps=5.0)))


def test_a_file_truncated_before_its_first_picture(tmp_path: Path, drifting: Callable) -> None:
    write_video(tmp_path / "a.mkv", drifting(45), 15, codec="libx264")
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match="is cut short: none of its"):
        list(read_recording({"video": tmp_path / "cut.mkv"}, settings("rgb", fps=15.0)))


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts"])
def test_a_truncated_file_is_detected(tmp_path: Path, drifting: Callable, suffix: str) -> None:
    write_video(tmp_path / f"a.{suffix}", drifting(45), 15, codec="mpeg4" if suffix == "avi" else "libx264")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    assert len(list(read_recording({"video": tmp_path / f"a.{suffix}"}, settings("rgb", fps=15.0)))) == 1
    (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    cut = {"video": tmp_path / f"cut.{suffix}"}
    if suffix == "ts":
        # A transport stream has no header with a duration: the first half is a valid recording.
        (piece,) = read_recording(cut, settings("rgb", fps=15.0))
        assert 10 < len(piece.streams["rgb"]) < 35
    else:
        with pytest.raises(ValueError, match="cut short" if suffix == "mkv" else "cut short|no media"):
            list(read_recording(cut, settings("rgb", fps=15.0)))


def drop_sound(source: Path, target: Path, first: float, last: float) -> Path:
    """Copies a file without its packets of sound from `first` to `last` seconds."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is None or packet.pts is None:
                continue
            if packet.stream.type == "video" or not first <= float(packet.pts * packet.time_base) < last:
                packet.stream = streams[packet.stream.index]
                written.mux(packet)
    return target


def test_gaps_are_counted_and_listed(tmp_path: Path, beep: Callable) -> None:
    """Sound is missing from 1.5 to 3 s of a recording that is cut every 2 s."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.1, 5 * 48000).astype(np.float32)
    options = {"bf": "0"}
    base, sound = tmp_path / "base.mkv", {"sound": noise, "sample_rate": 48000, "sound_codec": "aac"}
    write_video(base, levels(50), 10, options=options, **sound)  # pyright: ignore[reportArgumentType]
    (tmp_path / "in").mkdir()
    drop_sound(base, tmp_path / "in" / "a.mkv", 1.5, 3.0)
    wanted = settings("rgb", "audio", fps=10.0, clip_seconds=2.0)
    pieces = list(read_recording({"video": tmp_path / "in" / "a.mkv"}, wanted))
    close = partial(pytest.approx, abs=0.03)
    expected = [((close(1.5), close(2.0)),), ((close(0), close(1.0)),), ()]
    assert [piece.gaps.get("audio", ()) for piece in pieces] == expected
    for piece in pieces:
        times = np.arange(len(piece.streams["audio"])) / 16000
        start, end = piece.gaps["audio"][0] if piece.gaps else (9.0, 9.0)
        # The codec's windows reach a few milliseconds into the gap.
        inside, outside = (times > start + 0.03) & (times < end - 0.03), (times < start - 0.03) | (times > end + 0.03)
        assert not piece.streams["audio"][inside].any()
        assert np.square(piece.streams["audio"][outside]).mean() == pytest.approx(0.0033, rel=0.3)
    index = pack(tmp_path / "in", tmp_path / "out", wanted, workers=1)
    assert sum(shard.gapped for shard in index.shards) == 2
    assert summarise(index).gapped == 2
    (shard,) = index.shards
    with tarfile.open(tmp_path / "out" / shard.name) as tar:
        facts = json.loads(tar.extractfile("a-000.json").read())["modalities"]["audio"]  # pyright: ignore
    assert facts["gaps"] == [[close(1.5), close(2.0)]]


def test_gaps_of_a_declared_sound_track(tmp_path: Path, own_table: None) -> None:
    """Each track has its own: the video's lacks 1 to 2 s, the second microphone's 3 to 3.5 s of its file."""
    declare(plain_modality("mic2=audio"))
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * 48000).astype(np.float32)
    files = {}
    for name, first, last in (("video", 1.0, 2.0), ("mic2", 3.0, 3.5)):
        whole = tmp_path / f"{name}-whole.mkv"
        write_video(whole, levels(50), 10, options={"bf": "0"}, sound=noise, sample_rate=48000, sound_codec="aac")
        files[name] = drop_sound(whole, tmp_path / f"{name}.mkv", first, last)
    close, damage = partial(pytest.approx, abs=0.03), Damage()
    wanted = settings("rgb", "audio", "mic2", fps=10.0)
    (piece,) = read_recording(files, wanted, damage=damage)
    assert piece.gaps == {"audio": ((close(1.0), close(2.0)),), "mic2": ((close(3.0), close(3.5)),)}
    assert damage.gaps == [(close(1.0), close(2.0)), (close(3.0), close(3.5))]
    clip = encode_clip(Source("a", files), "a", piece, wanted)
    facts = json.loads(clip.members["json"])["modalities"]
    assert (clip.gaps, facts["mic2"]["gaps"]) == (2, [[close(3.0), close(3.5)]])


def test_a_video_file_without_pictures_is_sound(tmp_path: Path, beep: Callable) -> None:
    for name, codec in (("a.mp4", "aac"), ("b.webm", "libopus"), ("c.mkv", "flac")):
        with av.open(str(tmp_path / name), "w") as container:
            track: Any = container.add_stream(codec, rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray(beep(2.0, 1.0, 0.2, 48000)[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            resampler = av.AudioResampler(track.codec_context.format, "mono", 48000, track.codec_context.frame_size)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(track.encode(part))
            container.mux(track.encode(None))
        (piece,) = read_recording({"video": tmp_path / name}, settings("rgb", "flow", "audio"))
        assert list(piece.streams) == ["audio"]
        assert piece.duration == pytest.approx(2, abs=0.03)
        assert np.flatnonzero(np.abs(piece.streams["audio"]) > 0.2)[0] / 16000 == pytest.approx(1, abs=0.015)
        with pytest.raises(ValueError, match="it has none of rgb"):
            list(read_recording({"video": tmp_path / name}, settings("rgb")))


@pytest.mark.parametrize("clip_seconds", [2.0, 30.0])
def test_the_end_of_a_piece_has_its_own_flow(tmp_path: Path, drifting: Callable, clip_seconds: float) -> None:
    """Every entry is the motion to the next frame, also to the first of the next piece. Of the last frame it is the
    motion that led to it, and no copy.
    """
    shifts = np.cumsum(1 + np.arange(40) % 3)
    frames = np.stack([np.roll(drifting(1, 48, 160)[0], shift, axis=1)[:, :64] for shift in shifts])
    write_video(tmp_path / "a.mkv", frames, 10, codec="ffv1", pixel_format="bgr0")
    wanted = settings("rgb", "flow", fps=10.0, clip_seconds=clip_seconds)
    pieces = list(read_recording({"video": tmp_path / "a.mkv"}, wanted))
    flow, rgb = (np.concatenate([piece.streams[name] for piece in pieces]) for name in ("flow", "rgb"))
    assert len(flow) == len(rgb) == 40
    whole = FrameReader("rgb24", 32)
    shown = np.stack([whole.read(frame) for _, frame in iterate_frames(tmp_path / "a.mkv")])
    # The search keeps state between pairs.
    assert np.median(np.abs(flow - compute_flow(shown)), axis=(1, 2, 3)).max() < 0.05
    change = np.abs(np.diff(flow, axis=0)).max(axis=(1, 2, 3))
    assert (change[:-1] > 0.1).all()
    assert change[-1] > 0
    assert sum(piece.duration for piece in pieces) == pytest.approx(4.0)


def test_a_signal_that_ends_before_the_pictures(tmp_path: Path) -> None:
    """It keeps its last value to the end of its piece, and later pieces lack it."""
    write_video(tmp_path / "a.mp4", levels(60), 10)
    values = np.linspace(1, 2, 75)[:, None] * np.ones(6)
    np.save(tmp_path / "a.npy", values)
    files = {"video": tmp_path / "a.mp4", "inertial": tmp_path / "a.npy"}
    pieces = list(read_recording(files, settings("rgb", "inertial", fps=10.0, clip_seconds=2.0)))
    assert ["inertial" in piece.streams for piece in pieces] == [True, False, False]
    held = pieces[0].streams["inertial"][:, 0]
    np.testing.assert_allclose(held[:75], values[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(held[75:], np.full(25, 2, np.float32))
