"""Damaged packets are an error, or are counted and skipped; the pictures around them keep their times."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from modalgate.shards.media.container_io import FrameReader, iterate_frames, write_video
from modalgate.shards.media.damaged_packets import Clock, Damage, DisplayOrder
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.recording import read_recording

from ...overwritten import overwrite_packets


@pytest.fixture
def broken(film: Callable[..., Path], tmp_path: Path) -> Path:
    """Three seconds at 10 frames per second, with packets 12 to 14 overwritten."""
    path = film(tmp_path / "film.mp4", 3.0)
    overwrite_packets(path, "video", (12, 13, 14))
    return path


def test_without_a_count_a_damaged_packet_is_an_error(broken: Path) -> None:
    with pytest.raises(ValueError, match=r"its video at 1\.\d s cannot be decoded"):
        list(iterate_frames(broken))


def test_decoded_frames_keep_their_times(broken: Path) -> None:
    damage = Damage()
    frames = [round(10 * time, 6) for time, _ in iterate_frames(broken, damage)]
    assert damage.packets == 3
    # Packets are stored in the order of decoding.
    missing = set(range(30)) - set(frames)
    assert len(missing) == 3
    assert missing <= set(range(9, 18))
    assert frames == sorted(set(range(30)) - missing)
    assert damage.first == pytest.approx(min(missing) / 10)
    assert damage.last == pytest.approx(max(missing) / 10)


def test_times_of_damage_count_from_the_start(
    film: Callable[..., Path], delayed: Callable[[Path, Path, float], Path], tmp_path: Path
) -> None:
    """As times of windows do, for a video whose own clock starts at an hour."""
    path = delayed(film(tmp_path / "film.mp4", 3.0), tmp_path / "late.mp4", 3600.0)
    overwrite_packets(path, "video", (12,))
    damage = Damage()
    list(iterate_frames(path, damage))
    assert damage.packets == 1
    assert 0.9 < (damage.first or 0) < 1.8


def test_damage_as_text() -> None:
    assert str(Damage(3, 1.24, 1.5)) == "3 damaged packets were skipped, from 1.2 to 1.5 s"
    assert str(Damage(1, 0.5, 0.5)) == "1 damaged packet was skipped, at 0.5 s"
    assert str(Damage(2)) == "2 damaged packets were skipped"


def test_an_intact_video_has_no_damage(film: Callable[..., Path], tmp_path: Path) -> None:
    path, damage = film(tmp_path / "film.mp4", 1.0), Damage()
    strict, counted = (
        [FrameReader().read(frame) for _, frame in iterate_frames(path, given)] for given in (None, damage)
    )
    np.testing.assert_array_equal(strict, counted)
    assert damage == Damage()


@dataclass
class Stamp:
    """What a clock reads of a packet. Times are in hundredths of a second."""

    stream: SimpleNamespace
    pts: int | None
    dts: int | None
    duration: int = 4
    time_base: Fraction = Fraction(1, 100)


def placed(stamps: list[tuple[int, int]], jumps: bool = True) -> list[int]:
    """The times of (stream, time) on one clock."""
    clock, found = Clock(jumps), []
    for stream, time in stamps:
        packet = Stamp(SimpleNamespace(index=stream), time, time)
        clock.place(packet)
        assert packet.pts == packet.dts
        assert packet.pts is not None
        found.append(packet.pts)
    return found


def test_a_clock_that_starts_again_continues() -> None:
    part = [(stream, 4 * number) for number in range(100) for stream in (0, 1)]
    assert placed([*part, *part, *part]) == [time + 400 * number for number in range(3) for _, time in part]


def test_late_packets_of_the_part_before_stay_there() -> None:
    """At a joint, the last packet of sound comes after the first packets of the next pictures."""
    first = [(stream, 4 * number) for number in range(100) for stream in (0, 1)][:-1]
    second = [(0, 0), (0, 4), (1, 396), (0, 8), (1, 0), (1, 4)]
    assert placed([*first, *second])[-6:] == [400, 404, 396, 408, 400, 404]


def test_a_stream_that_begins_later_in_the_next_part() -> None:
    """Sound ends after a second of the first part, and begins at two seconds of the second."""
    first = [(0, 4 * number) for number in range(25)] + [(1, 96)] + [(0, 4 * number) for number in range(25, 100)]
    second = [(0, 4 * number) for number in range(50)] + [(1, 200), (0, 200), (1, 204)]
    assert placed([*first, *second])[-3:] == [600, 600, 604]


def test_a_single_wrong_time_is_not_a_joint() -> None:
    assert placed([(0, 0), (0, 4), (0, 500), (0, 12), (0, 16)]) == [0, 4, 500, 12, 16]


def test_a_pause_of_one_stream_is_not_a_joint() -> None:
    """Sound is away for 20 seconds while pictures go on. A jump of all streams is a joint where clocks may jump."""
    pictures = [(0, 4 * number) for number in range(600)]
    stamps = [(1, 0), *pictures, (1, 2400)]
    assert placed(stamps) == [time for _, time in stamps]
    assert placed([(0, 0), (1, 0), (0, 5000), (1, 5000)]) == [0, 0, 4, 4]
    assert placed([(0, 0), (1, 0), (0, 5000), (1, 5000)], jumps=False) == [0, 0, 5000, 5000]


@pytest.mark.parametrize("reordered", ["0", "1", "2", "3", "5"])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "mpeg2video"])
def test_frames_of_avi_come_in_display_order(tmp_path: Path, codec: str, reordered: str) -> None:
    """Each of 72 frames has its own gray level. AVI stores the order of decoding."""
    frames = np.broadcast_to((20 + 3 * np.arange(72, dtype=np.uint8))[:, None, None, None], (72, 32, 48, 3)).copy()
    options = {"bf": reordered, "crf": "4", "b": "4000000", "b_strategy": "0", "b-adapt": "0"}
    write_video(tmp_path / "a.avi", frames, 25, codec=codec, options=options)
    found = list(iterate_frames(tmp_path / "a.avi"))
    times = [time for time, _ in found]
    # From 0 on, as the sound: the first picture is not late by the delay of the decoder.
    np.testing.assert_allclose(times, np.arange(72) / 25, atol=0.001)
    levels = [frame.to_ndarray(format="gray").mean() for _, frame in found]
    assert np.all(np.diff(levels) > 0)


@pytest.mark.parametrize("reordered", ["0", "2"])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("avi", "mpeg4"), ("avi", "libx264"), ("mkv", "libx264"), ("mp4", "libx264"), ("ts", "mpeg4")],
)
def test_a_flash_and_a_beep_stay_together_where_frames_are_reordered(
    tmp_path: Path, suffix: str, codec: str, reordered: str
) -> None:
    frames = np.full((50, 32, 48, 3), 16, np.uint8)
    frames[25:30] = 235
    beep = np.zeros(2 * 16000, np.float32)
    beep[16000:17600] = 0.5
    path, options = tmp_path / f"a.{suffix}", {"bf": reordered, "b_strategy": "0", "b-adapt": "0", "g": "12"}
    sound_codec = "mp2" if suffix == "ts" else "pcm_s16le" if suffix == "avi" else "aac"
    write_video(path, frames, 25, codec=codec, options=options, sound=beep, sound_codec=sound_codec)
    settings = PackSettings(modalities=("rgb", "audio"), size=32, fps=25.0)
    (piece,) = read_recording({"video": path}, settings)
    flash = np.flatnonzero(piece.streams["rgb"].reshape(50, -1).mean(axis=1) > 128)[0] / 25
    heard = np.flatnonzero(np.abs(piece.streams["audio"]) > 0.2)[0] / 16000
    assert flash == 1.0
    assert heard == pytest.approx(1.0, abs=0.02)


def test_frames_without_a_time_follow_the_one_before() -> None:
    order = DisplayOrder(
        SimpleNamespace(codec_context=SimpleNamespace(has_b_frames=1), average_rate=Fraction(25), guessed_rate=None)
    )
    frames = [SimpleNamespace(pts=pts, time_base=Fraction(1, 25)) for pts in (0, 2, 1, None, 5)]
    found = [time for frame in frames for time, _ in order.put(frame)] + [time for time, _ in order.rest()]
    assert found == pytest.approx([0, 0.04, 0.08, 0.12, 0.2])


def test_damage_as_a_sentence() -> None:
    assert not Damage()
    lost = Damage(gaps=[(3.0, 5.0), (6.0, 6.5)])
    assert lost
    assert str(lost) == "sound is missing from 3.0 to 5.0 s and 1 more times"
    lost.include(Damage(1, 1.0, 1.0, [(7.0, 8.0)]))
    assert str(lost) == "1 damaged packet was skipped, at 1.0 s; sound is missing from 3.0 to 5.0 s and 2 more times"
