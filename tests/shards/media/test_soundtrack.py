"""Sound stays in time with the pictures at any rate, and where packets of it are damaged."""

import tracemalloc
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.shards.media.damaged_packets import Damage
from modalgate.shards.media.soundtrack import MonoTrack, SoundPieces, iterate_sound, read_sound

from ...overwritten import overwrite_packets


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_sound_keeps_its_time(tmp_path: Path, beep: Callable, drifting: Callable, rate: int) -> None:
    """A beep 1 s into the track is found 1 s in, to 10 ms, at any rate and with any codec."""
    sound = beep(2.0, 1.0, 0.1, rate)
    write_video(tmp_path / "a.mp4", drifting(20), 10, sound=sound, sample_rate=rate, sound_codec="aac")
    begin, read_back = read_sound(tmp_path / "a.mp4", 16000)
    loud = np.flatnonzero(np.abs(read_back) > 0.2) / 16000 + begin
    assert loud[0] == pytest.approx(1.0, abs=0.01)
    assert loud[-1] == pytest.approx(1.1, abs=0.01)


def test_wave_round_trip(tmp_path: Path, beep: Callable) -> None:
    sound = beep(0.5)
    write_wave(tmp_path / "a.wav", sound, 16000)
    begin, back = read_sound(tmp_path / "a.wav", 16000)
    assert begin == 0
    np.testing.assert_allclose(back, sound, atol=1.5 / 32768)


def test_damaged_packets_become_silence(tmp_path: Path, beep: Callable, drifting: Callable) -> None:
    """A beep 2 s into the track stays there if half a second before it is lost."""
    path = tmp_path / "a.mp4"
    write_video(path, drifting(30), 10, sound=beep(3.0, 2.0, 0.1), sound_codec="aac")
    overwrite_packets(path, "audio", range(16, 24))
    with pytest.raises(ValueError, match=r"its audio at 1\.0 s cannot be decoded"):
        read_sound(path, 8000)
    damage = Damage()
    pieces = list(iterate_sound(path, 8000, damage=damage))
    sound = np.concatenate([samples for _, samples in pieces])
    assert damage.packets == 8
    assert len(sound) / 8000 == pytest.approx(3, abs=0.2)
    loud = np.flatnonzero(np.abs(sound) > 0.2) / 8000 + pieces[0][0]
    assert (loud[0], loud[-1]) == (pytest.approx(2, abs=0.01), pytest.approx(2.1, abs=0.01))


def tone(begin: float, seconds: float, rate: int = 48000) -> av.AudioFrame:
    """A frame whose samples say at which time they belong: a ramp from its first second to its last, over 100."""
    values = ((begin + np.arange(round(seconds * rate)) / rate) / 100).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(values[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, round(begin * rate), Fraction(1, rate)
    return frame


def placed(frames: list[tuple[float, av.AudioFrame]], rate: int = 48000) -> tuple[np.ndarray, list]:
    """The track of frames with these time stamps, in seconds, and its gaps."""
    gaps: list[tuple[float, float]] = []
    track = MonoTrack(rate, on_gap=lambda start, end: gaps.append((start, end)))
    found = []
    for stamp, frame in frames:
        frame.pts = round(stamp * 48000)
        found += list(track.put(frame))
    return np.concatenate([*found, *track.rest()]), gaps


@pytest.mark.parametrize("rate", [48000, 16000])
def test_every_packet_stands_at_its_time(rate: int) -> None:
    """Packets of 20 ms are missing from 1 to 1.5 s, one is missing at 3 s, and half a second comes twice."""
    kept = [n * 0.02 for n in range(200) if not 50 <= n < 75 and n != 150]
    frames = [(begin, tone(begin, 0.02)) for begin in kept]
    twice = [(begin, tone(begin, 0.02)) for begin in kept if 2 <= begin < 2.5]
    place = next(number for number, (stamp, _) in enumerate(frames) if stamp >= 2.5)
    sound, gaps = placed([*frames[:place], *twice, *frames[place:]], rate)
    assert len(sound) == pytest.approx(4 * rate, abs=rate // 500)
    assert gaps == [(pytest.approx(1.0), pytest.approx(1.5)), (pytest.approx(3.0), pytest.approx(3.02))]
    times = np.arange(len(sound)) / rate
    heard = np.abs(sound) > 0
    for start, end in ((0.1, 0.99), (1.51, 2.99), (3.03, 3.9)):
        inside = (times > start) & (times < end)
        assert heard[inside].all()
        np.testing.assert_allclose(sound[inside] * 100, times[inside], atol=0.003)
    assert not heard[(times > 1.01) & (times < 1.49)].any()


def test_late_and_early_time_stamps_of_single_packets_are_not_believed() -> None:
    """Time stamps of a camera scatter by up to 40 ms. No sound is lost and none is put in."""
    scatter = np.random.default_rng(0).uniform(-0.04, 0.04, 200) * (np.arange(200) % 3 == 1)
    sound, gaps = placed([(n * 0.02 + scatter[n], tone(n * 0.02, 0.02)) for n in range(200)])
    assert not gaps
    np.testing.assert_allclose(sound * 100, np.arange(192000) / 48000, atol=1e-4)


def test_a_clock_that_drifts_stays_within_twenty_milliseconds() -> None:
    """A sound card that is a thousandth slow, over a minute."""
    sound, _ = placed([(n * 0.02 * 1.001, tone(n * 0.02 * 1.001, 0.02)) for n in range(3000)])
    times = np.arange(len(sound)) / 48000
    heard = sound > 0
    assert np.abs(sound[heard] * 100 - times[heard]).max() < 0.02
    assert heard.mean() > 0.99


def test_a_far_time_stamp_is_an_error(tmp_path: Path, beep: Callable) -> None:
    write_video(tmp_path / "a.mkv", np.zeros((20, 32, 32, 3), np.uint8), 10, sound=beep(2.0), sound_codec="aac")
    with av.open(str(tmp_path / "a.mkv")) as read, av.open(str(tmp_path / "far.mkv"), "w") as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        packets: list[Any] = [packet for packet in read.demux() if packet.dts is not None]
        for number, packet in enumerate(packets):
            if packet.stream.type == "audio" and number > len(packets) - 4:
                packet.pts, packet.dts = packet.pts + 10_000_000, packet.dts + 10_000_000
            packet.stream = streams[packet.stream.index]
            written.mux(packet)
    with pytest.raises(ValueError, match=r"longer than 100 s|a gap of"):
        read_sound(tmp_path / "far.mkv", 16000, max_seconds=100)


def parts(values: np.ndarray, begin: float) -> Iterator[tuple[float, np.ndarray]]:
    """The samples in uneven parts, as packets come."""
    generator, place = np.random.default_rng(0), 0
    while place < len(values):
        length = int(generator.integers(1, 40))
        yield begin, values[place : place + length]
        place += length


@pytest.mark.parametrize(("begin", "origin"), [(0.0, None), (3.0, None), (0.0, 0.37), (1.2, 0.5), (0.0, 9.0)])
def test_pieces_are_slices_of_the_whole_sound(begin: float, origin: float | None) -> None:
    values = np.arange(1, 501, dtype=np.float32)
    pieces = SoundPieces(parts(values, begin), 100, origin)
    shift = round(((begin if origin is None else origin) - begin) * 100)
    padded = np.concatenate([np.zeros(max(-shift, 0)), values[max(shift, 0) :], np.zeros(1000)])
    for number in range(8):
        np.testing.assert_array_equal(pieces.cut(0.9 * number, 0.9), padded[90 * number : 90 * number + 90])
    again = SoundPieces(parts(values, begin), 100, origin)
    length = max(500 - shift, 0) / 100
    for seconds in (0.5, 2.0, 100.0):
        known = again.seconds(seconds)
        assert known == length if seconds > length else seconds <= known <= length


def test_hours_of_sound_take_the_memory_of_a_piece() -> None:
    hours = ((0.0, np.zeros(1600, np.float32)) for _ in range(36000))
    tracemalloc.start()
    pieces = SoundPieces(hours, 16000)
    for number in range(300):
        pieces.cut(10.0 * number, 10.0)
    pieces.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pieces.count == 3600 * 16000
    assert peak < 8e6  # the whole takes 230 MB


def test_a_gap_of_hours_takes_the_memory_of_a_second() -> None:
    track, count = MonoTrack(8000), 0
    tracemalloc.start()
    for begin in (0.0, 0.1, 3600.0):
        for samples in track.put(tone(begin, 0.1, 8000)):
            count += len(samples)
    for samples in track.rest():
        count += len(samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3600 * 8000 + 800
    assert peak < 8e6  # the whole takes 115 MB


def test_sound_that_is_too_long_or_too_slow_is_refused_at_open(tmp_path: Path) -> None:
    write_wave(tmp_path / "long.wav", np.zeros(8000 * 5, np.float32), 8000)
    with pytest.raises(ValueError, match=r"its sound lasts 5 s, more than 4 \(--max-seconds\)"):
        next(iterate_sound(tmp_path / "long.wav", 8000, max_seconds=4))
    write_wave(tmp_path / "slow.wav", np.zeros(1000, np.float32), 1)
    with pytest.raises(ValueError, match="its sound has 1 samples per second, fewer than 1000"):
        next(iterate_sound(tmp_path / "slow.wav", 8000))


def write_wide(path: Path, channels: np.ndarray, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(channels.T * 32767).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("weights", "level"),
    [
        ([1, -1], 0.5),  # swapped poles
        ([0.2, -0.2], 0.1),
        ([1, -0.95], 0.5),
        ([1, 1], 0.5),
        ([1, 0], 0.25),
        ([0, 0, 0, 1, 0, 0], 0.5),  # only the subwoofer, which a mix leaves out
        ([1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0.5),
    ],
)
def test_what_sounds_is_heard(tmp_path: Path, beep: Callable, weights: list[float], level: float) -> None:
    """A tone of amplitude .5 in channels of these weights: the mix, or the loudest channel where the mix cancels."""
    channels = np.array(weights, np.float32)[:, None] * beep(1.0, 0.4, 0.3)
    _, sound = read_sound(write_wide(tmp_path / "a.wav", channels), 16000)
    assert np.abs(sound[6600:11000]).max() == pytest.approx(level, rel=0.05)
    assert np.abs(sound[:6000]).max() < 0.01


def test_loud_channels_in_phase_do_not_clip(tmp_path: Path, beep: Callable) -> None:
    for count in (2, 6):
        _, sound = read_sound(write_wide(tmp_path / f"{count}.wav", np.stack([1.9 * beep(1.0)] * count)), 16000)
        assert 0.9 < np.abs(sound).max() < 1.0


def test_a_layout_that_changes_on_the_way() -> None:
    """Mono, then stereo at another rate, as in a broadcast between two programmes."""
    mono = [(n * 0.02, tone(n * 0.02, 0.02)) for n in range(50)]
    stereo = []
    for number in range(50, 100):
        values = np.tile(((number * 0.02 + np.arange(640) / 32000) / 100).astype(np.float32), (2, 1))
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base = 32000, Fraction(1, 48000)
        stereo.append((number * 0.02, frame))
    sound, gaps = placed([*mono, *stereo])
    assert not gaps
    np.testing.assert_allclose(sound[500:-500] * 100, (np.arange(len(sound)) / 48000)[500:-500], atol=0.01)


def test_a_file_without_sound(tmp_path: Path, drifting: Callable) -> None:
    write_video(tmp_path / "a.mp4", drifting(5), 10)
    with pytest.raises(ValueError, match="it has no sound track"):
        read_sound(tmp_path / "a.mp4", 16000)
