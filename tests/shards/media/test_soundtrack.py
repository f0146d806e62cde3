"""Sound stays in time with the pictures at any rate, and where packets of it are damaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.shards.media.damaged_packets import Damage
from modalgate.shards.media.soundtrack import iterate_sound, read_sound

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
