"""Damaged packets are an error, or are counted and skipped; the pictures around them keep their times."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.media.container_io import FrameReader, iterate_frames
from modalgate.shards.media.damaged_packets import Damage

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
