"""Sliding windows against windows cut from the whole recording in memory; constant memory; no repeated decoding."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import Application, clip_application, default_application
from modalgate.shards.clips.decode import decode_signal, fit_square, place_square
from modalgate.shards.clips.piece import Piece, Window
from modalgate.shards.clips.windows import frame_times, uniform_starts
from modalgate.shards.index.table import Statistics
from modalgate.shards.live.sliding import batch_windows
from modalgate.shards.live.sliding import slide as slide_pieces
from modalgate.shards.media.container_io import FrameReader, write_video, write_wave
from modalgate.shards.media.damaged_packets import Damage
from modalgate.shards.media.flow import quantise_flow
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import modality
from modalgate.shards.packing.recording import read_recording
from numpy.typing import NDArray

RATE = 16000


@pytest.fixture
def spec() -> Callable[..., ClipSpec]:
    def build(seconds: float = 0.5, frames: int = 3, size: int = 24, fps: float = 10.0) -> ClipSpec:
        return ClipSpec(seconds, frames, size, 32, fps, RATE, 14.0, {"rgb": Statistics((0.0,), (1.0,))})

    return build


def slide(
    files: dict[str, Path], spec: ClipSpec, names: tuple[str, ...], hop: float | None = None
) -> Iterator[Window]:
    """Pieces of one window each, as for a model whose clips are unknown."""
    for piece in slide_pieces(files, spec, names, default_application(spec, 3), hop):
        (view,) = piece.views
        assert (view.start, piece.present) == (piece.start, list(view.streams))
        yield replace(view, end=piece.end)


def naive(files: dict[str, Path], spec: ClipSpec, names: tuple[str, ...], start: float) -> dict[str, NDArray]:
    """One window of a recording that is completely in memory."""
    settings = PackSettings(names, 32, spec.fps, spec.flow_bound, spec.sample_rate, clip_seconds=1e6)
    (recording,) = read_recording(files, settings)
    streams = {}
    for name, values in recording.streams.items():
        entry = modality(name)
        if entry.kind != "video":
            rate = RATE if name == "audio" else recording.rates[name]
            count = round(spec.seconds * rate)
            streams[name] = np.zeros((count, *values.shape[1:]), np.float32)
            if name == "audio":
                piece = values[round(start * rate) :][:count]
                streams[name][: len(piece)] = piece
                continue
            for row in range(count):
                place = start * rate + row
                before, after = min(int(place), len(values) - 1), min(int(place) + 1, len(values) - 1)
                streams[name][row] = values[before] + (place - before) * (values[after] - values[before])
            continue
        numbers = np.floor(frame_times(np.array([start]), spec.seconds, spec.frames)[0] * spec.fps + 1e-6).astype(int)
        frames = values[np.clip(numbers, 0, len(values) - 1)]
        if entry.flow_of:
            frames = quantise_flow(frames, spec.flow_bound)
        else:
            frames = frames.transpose(0, 3, 1, 2) if frames.ndim == 4 else frames[:, None]
        side, top, left = place_square(*frames.shape[2:], (0.5, 0.5), entry)
        streams[name] = np.empty((*frames.shape[:2], spec.size, spec.size), frames.dtype)
        for frame, square in zip(frames, streams[name], strict=True):
            fit_square(frame[:, top : top + side, left : left + side], square)
    return streams


@pytest.fixture
def files(film: Callable[..., Path], drifting: Callable[..., NDArray[np.uint8]], tmp_path: Path) -> dict[str, Path]:
    """3.3 seconds with every modality; the sound gets louder."""
    generator = np.random.default_rng(0)
    sound = (generator.standard_normal(53000) * np.linspace(0.02, 0.2, 53000)).astype(np.float32)
    film(tmp_path / "clip.mp4", 3.3, sound, dx=2)
    millimetres = 500 + drifting(33, 32, 44, dx=1, seed=5)[..., 0].astype(np.uint16) * 217
    write_video(tmp_path / "depth.mkv", millimetres, 10, codec="ffv1", pixel_format="gray16le")
    np.save(tmp_path / "inertial.npy", generator.normal(size=(165, 6)).astype(np.float32))
    return {
        "video": tmp_path / "clip.mp4",
        "depth": tmp_path / "depth.mkv",
        "inertial": tmp_path / "inertial.npy",
    }


@pytest.mark.parametrize("hop", [None, 0.1, 0.37, 1.3])
def test_windows_equal_those_of_the_whole_recording(
    files: dict[str, Path], spec: Callable[..., ClipSpec], hop: float | None
) -> None:
    names = ("rgb", "flow", "depth", "depth_flow", "audio", "inertial")
    windows = list(slide(files, spec(), names, hop))
    step = hop or 0.25
    assert [window.start for window in windows] == pytest.approx(np.arange(0, 2.8 + 1e-6, step))
    for window in windows:
        assert window.end == pytest.approx(window.start + 0.5)
        expected = naive(files, spec(), names, window.start)
        assert list(window.streams) == list(names)
        for name in names:
            # The flow search keeps state between pairs: single bytes differ by one.
            off = np.abs(window.streams[name].astype(float) - expected[name])
            # An interpolated signal is rounded differently.
            within = 1 if modality(name).flow_of else {"inertial": 1e-6}.get(name, 0)
            assert off.max() <= within, f"{name} at {window.start}"
            assert (off > min(within, 1e-6)).mean() < 0.002


def test_a_recording_shorter_than_a_window_repeats_its_last_frame(
    film: Callable[..., Path], spec: Callable[..., ClipSpec], beep: Callable[..., NDArray[np.float32]], tmp_path: Path
) -> None:
    files = {"video": film(tmp_path / "short.mp4", 0.4, beep(0.4), dx=2)}
    (window,) = slide(files, spec(seconds=1.0, frames=10), ("rgb", "flow", "audio"))
    assert (window.start, window.end) == (0, pytest.approx(0.4))
    rgb = window.streams["rgb"]
    assert all((rgb[number] == rgb[3]).all() for number in range(4, 10))
    assert (rgb[2] != rgb[3]).any()
    assert np.abs(window.streams["audio"][:4000]).max() > 0.1
    assert (window.streams["audio"][8000:] == 0).all()


def test_frames_are_converted_once(
    film: Callable[..., Path], spec: Callable[..., ClipSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "long.mp4", 4.0)
    read, seen = FrameReader.read, []
    monkeypatch.setattr(FrameReader, "read", lambda self, frame: seen.append(frame.pts) or read(self, frame))
    assert len(list(slide({"video": path}, spec(), ("rgb", "flow"), 0.1))) == 36
    assert len(seen) == len(set(seen)) == 40


@pytest.mark.slow
@pytest.mark.parametrize("hop", [0.25, 3.0])
def test_memory_does_not_grow_with_the_recording(
    film: Callable[..., Path],
    beep: Callable[..., NDArray[np.float32]],
    spec: Callable[..., ClipSpec],
    tmp_path: Path,
    hop: float,
) -> None:
    peaks = []
    for seconds in (10.0, 60.0):
        path = film(tmp_path / f"{seconds}.mkv", seconds, beep(seconds), dx=0)
        tracemalloc.start()
        count = sum(1 for _ in slide({"video": path}, spec(), ("rgb", "flow", "audio"), hop))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == int((seconds - 0.5) / hop) + 1
    # The longer sound alone has 3.2 MB more.
    assert peaks[1] < peaks[0] + 5e5


def test_sound_alone_and_sound_that_ends_before_the_pictures(
    film: Callable[..., Path], beep: Callable[..., NDArray[np.float32]], spec: Callable[..., ClipSpec], tmp_path: Path
) -> None:
    write_wave(tmp_path / "tone.wav", beep(2.0), RATE)
    windows = list(slide({"audio": tmp_path / "tone.wav"}, spec(), ("rgb", "audio")))
    assert len(windows) == 7
    assert all(list(window.streams) == ["audio"] for window in windows)
    film(tmp_path / "clip.mkv", 2.0, beep(0.9))
    windows = slide({"video": tmp_path / "clip.mkv"}, spec(), ("rgb", "audio"), 0.5)
    assert ["audio" in window.streams for window in windows] == [True, True, False, False]


def test_pictures_and_sound_with_the_same_delay_stay_in_time(
    film: Callable[..., Path],
    beep: Callable[..., NDArray[np.float32]],
    delayed: Callable[[Path, Path, float], Path],
    spec: Callable[..., ClipSpec],
    tmp_path: Path,
) -> None:
    plain = film(tmp_path / "plain.mp4", 2.0, beep(2.0, at=0.7, length=0.3))
    late = delayed(plain, tmp_path / "late.mkv", 1.5)
    for mine, theirs in zip(
        slide({"video": late}, spec(), ("rgb", "audio")),
        slide({"video": plain}, spec(), ("rgb", "audio")),
        strict=True,
    ):
        assert mine.streams.keys() == theirs.streams.keys()
        if "audio" in mine.streams:
            # Matroska rounds to milliseconds.
            tone = [np.flatnonzero(np.abs(window.streams["audio"]) > 0.2) for window in (mine, theirs)]
            assert [len(places) > 0 for places in tone] in ([True, True], [False, False])
            if len(tone[0]):
                assert abs(int(tone[0][0]) - int(tone[1][0])) <= RATE * 0.002


def test_a_silent_track_is_absent(film: Callable[..., Path], spec: Callable[..., ClipSpec], tmp_path: Path) -> None:
    path = film(tmp_path / "silent.mkv", 1.0, np.zeros(RATE, np.float32))
    assert all("audio" not in window.streams for window in slide({"video": path}, spec(), ("rgb", "audio")))


def test_missing_modalities(film: Callable[..., Path], spec: Callable[..., ClipSpec], tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", 1.0)
    with pytest.raises(ValueError, match="none of audio"):
        next(slide({"video": path}, spec(), ("audio",)))
    with pytest.raises(ValueError, match="hop of 0 s does not move"):
        next(slide({"video": path}, spec(), ("rgb",), 0))


def test_windows_become_clips_of_one_segment() -> None:
    pictures = np.zeros((3, 3, 8, 8), np.uint8)
    sound = np.ones(10, np.float32)
    batch = batch_windows(
        [Window(0, 1, {"rgb": pictures}), Window(0.5, 1.5, {"rgb": pictures + 1, "audio": sound})], ("rgb", "audio")
    )
    assert batch.streams["rgb"].shape == (2, 1, 3, 3, 8, 8)
    assert batch.present["audio"].tolist() == [[False], [True]]
    assert batch.streams["audio"][:, 0].tolist() == [[0] * 10, [1] * 10]
    assert batch.start.tolist() == [[0], [0.5]]


def starts(pieces: list[Piece]) -> list[float]:
    return [round(piece.start, 6) for piece in pieces]


@pytest.mark.parametrize("stretch", [0.0, 0.5])
def test_a_piece_is_cut_like_a_clip_of_its_length(
    files: dict[str, Path], spec: Callable[..., ClipSpec], stretch: float
) -> None:
    """Each view against the window with the same start and length, cut from the whole recording in memory."""
    names = ("rgb", "depth", "inertial") if stretch else ("rgb", "depth", "audio", "inertial")
    view = replace(spec(), stretch=stretch)
    application = clip_application(3, [1.0, 1.2, 1.4], 30.0)
    pieces = list(slide_pieces(files, view, names, application))
    # The last one ends with the recording.
    assert starts(pieces) == [0, 0.6, 1.2, 1.8, 2.1]
    covered = stretch * 1.2 or 0.5
    for piece in pieces:
        assert piece.end - piece.start == pytest.approx(1.2)
        assert not piece.whole
        assert [window.start - piece.start for window in piece.views] == pytest.approx(
            uniform_starts(1.2, covered, 3)
        )
        for window in piece.views:
            expected = naive(files, replace(view, seconds=covered), names, window.start)
            for name in names:
                if name == "inertial":
                    continue
                assert np.array_equal(window.streams[name], expected[name]), f"{name} at {window.start}"
            # As many samples as a window has, over the time it covers.
            times = window.start + np.arange(25) * covered / 25
            truth = np.load(files["inertial"])
            inside = times < piece.end - 0.03
            for channel in range(6):
                found = window.streams["inertial"][inside, channel]
                np.testing.assert_allclose(
                    found, np.interp(times[inside] * 50, np.arange(165), truth[:, channel]), atol=1e-4
                )


def test_the_last_piece_ends_with_the_recording_unless_a_hop_is_given(
    files: dict[str, Path], spec: Callable[..., ClipSpec]
) -> None:
    application = clip_application(2, [2.0], 30.0)
    pieces = list(slide_pieces(files, spec(), ("rgb", "audio"), application))
    assert starts(pieces) == [0, 1.0, 1.3]
    assert pieces[-1].end == pytest.approx(3.3)
    assert starts(list(slide_pieces(files, spec(), ("rgb", "audio"), application, 1.0))) == [0, 1.0]
    assert starts(list(slide_pieces(files, spec(), ("rgb",), clip_application(2, [1.1], 30.0)))) == pytest.approx(
        [0, 0.55, 1.1, 1.65, 2.2]
    )


def test_a_recording_shorter_than_a_piece_is_one(files: dict[str, Path], spec: Callable[..., ClipSpec]) -> None:
    (piece,) = slide_pieces(files, spec(), ("rgb",), clip_application(3, [5.0], 30.0))
    assert (piece.start, piece.end, len(piece.views)) == (0, pytest.approx(3.3), 3)
    assert [view.start for view in piece.views] == pytest.approx([0, 1.4, 2.8])


def test_silence_is_decided_per_piece(
    film: Callable[..., Path], spec: Callable[..., ClipSpec], beep: Callable[..., NDArray[np.float32]], tmp_path: Path
) -> None:
    """A tone from 3 to 4 s: only pieces of one second in this range have sound, though the video is not silent."""
    path = film(tmp_path / "clip.mkv", 6.0, beep(6.0, at=3.0, length=1.0))
    application = replace(clip_application(2, [1.0], 30.0), hop=1.0)
    pieces = list(slide_pieces({"video": path}, spec(seconds=0.3), ("rgb", "audio"), application))
    assert [piece.present for piece in pieces[:2]] == [["rgb"]] * 2
    assert pieces[3].present == ["rgb", "audio"]
    assert all("audio" in view.streams for view in pieces[3].views)


def test_a_window_uses_nothing_beyond_its_piece(files: dict[str, Path], spec: Callable[..., ClipSpec]) -> None:
    """Clips shorter than a window repeat their last frame, and so do pieces within a recording."""
    application = replace(Application(1, 0.5, 0.5, 0.75, 0.5), longest=0.5)
    piece = list(slide_pieces(files, spec(seconds=1.0, frames=10), ("rgb", "audio"), application))[1]
    (view,) = piece.views
    assert all((view.streams["rgb"][number] == view.streams["rgb"][4]).all() for number in range(5, 10))
    assert (view.streams["rgb"][3] != view.streams["rgb"][4]).any()
    assert np.abs(view.streams["audio"][:8000]).max() > 0
    assert not view.streams["audio"][8000:].any()


def test_missing_sound_is_silent_and_listed(
    film: Callable[..., Path], spec: Callable[..., ClipSpec], tmp_path: Path
) -> None:
    """Packets of sound are missing from 1.0 to 2.0 s: a later noise keeps its time."""
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    noise[round(2.5 * RATE) :] = 0
    noise[round(3.2 * RATE) : round(3.3 * RATE)] = 0.5
    film(tmp_path / "whole.mp4", 4.0, noise)
    with av.open(str(tmp_path / "whole.mp4")) as read, av.open(str(tmp_path / "gap.mp4"), "w") as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            stamp = packet.dts
            if stamp is None or (packet.stream.type == "audio" and 1 <= float(stamp * packet.time_base) < 2):
                continue
            packet.stream = streams[packet.stream.index]
            written.mux(packet)
    damage = Damage()
    application = default_application(spec(), 1)
    pieces = slide_pieces({"video": tmp_path / "gap.mp4"}, spec(), ("rgb", "audio"), application, 0.5, None, damage)
    sounds = [piece.views[0].streams.get("audio", np.zeros(RATE // 2)) for piece in pieces]
    assert damage.gaps == [(pytest.approx(1.0, abs=0.07), pytest.approx(2.0, abs=0.07))]
    assert "sound is missing from 1." in str(damage)
    sound = np.concatenate(sounds)
    assert np.abs(sound[round(1.15 * RATE) : round(1.9 * RATE)]).max() == 0
    assert np.flatnonzero(np.abs(sound[3 * RATE :]) > 0.3)[0] / RATE == pytest.approx(0.2, abs=0.02)


def test_a_signal_keeps_its_last_value_past_its_end(spec: Callable[..., ClipSpec], tmp_path: Path) -> None:
    """As in windows of shards: one and a half seconds of a signal in a window of two."""
    values = np.linspace(1, 2, 75)[:, None] * np.ones(6)
    np.save(tmp_path / "a.npy", values.astype(np.float32))
    data = (tmp_path / "a.npy").read_bytes()
    expected = decode_signal(data, modality("inertial"), 50.0, np.zeros(1), 100, 0.02)[0]
    (piece,) = slide_pieces(
        {"inertial": tmp_path / "a.npy"}, spec(2.0), ("inertial",), Application(1, 2.0, 0, 0, 2.0)
    )
    np.testing.assert_allclose(piece.views[0].streams["inertial"], expected, atol=1e-6)
    assert expected[-1, 0] == 2


def test_flow_at_the_end_is_no_copy(spec: Callable[..., ClipSpec], tmp_path: Path) -> None:
    """As in packing: the last entry is the motion that led to the last frame."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 4, 6, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    write_video(tmp_path / "a.mkv", noise, 10, codec="ffv1", pixel_format="bgr0")
    pieces = list(
        slide_pieces({"video": tmp_path / "a.mkv"}, spec(0.5, 5), ("flow",), Application(1, 0.5, 0, 0, 0.1))
    )
    assert pieces[-1].end == pytest.approx(2.0)
    for piece in pieces:
        flow = piece.views[0].streams["flow"].astype(int)
        assert (np.abs(np.diff(flow, axis=0)).max(axis=(1, 2, 3)) > 0).all()
