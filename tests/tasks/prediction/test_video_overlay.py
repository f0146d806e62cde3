"""The rewritten video: frames, times, sound and overlay."""

from pathlib import Path

import av
import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.soundtrack import read_sound
from modalgate.tasks.prediction.video_overlay import OverlayVideo
from modalgate.tasks.prediction.window_scores import Prediction


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three seconds of grey picture with 240 lines, and noise as sound."""
    sound = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    write_video(tmp_path / "film.mp4", np.full((30, 240, 320, 3), 128, np.uint8), 10, sound=sound, sound_codec="aac")
    return tmp_path / "film.mp4"


def draw(source: Path, target: Path, whole: bool = True) -> None:
    drawn = OverlayVideo(source, target)
    for start, score, alarm in ((0, 0.1, None), (1, 0.9, "fight"), (2, 0.2, None)):
        gates = {"rgb": 0.7, "audio": 0.3}
        drawn.add(Prediction(start, start + 1, {"calm": 1 - score, "fight": score}, gates, ["rgb"]), alarm)
        if start == 1 and not whole:
            break
    drawn.close(whole)


def read(path: Path) -> tuple[list[float], np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(frame.time or 0) for frame in frames], np.stack(
        [frame.to_ndarray(format="rgb24") for frame in frames]
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_every_frame_keeps_its_time_and_shows_the_nearest_window(film: Path, tmp_path: Path, suffix: str) -> None:
    draw(film, tmp_path / f"drawn.{suffix}")
    times, pictures = read(tmp_path / f"drawn.{suffix}")
    assert times == pytest.approx(np.arange(30) / 10, abs=2e-3)
    red = (pictures[:, 100, 1, 0].astype(int) - pictures[:, 100, 1, 2]) > 80
    assert red.tolist() == [1 <= number / 10 < 2 for number in range(30)]
    # Bars at the bottom, the middle unchanged.
    assert np.abs(pictures[:, 60:180, 20:-20].astype(int) - 128).max() < 12
    assert (pictures[:, -20:].mean(axis=(1, 2, 3)) < 100).all()
    before, after = (read_sound(path, 16000)[1] for path in (film, tmp_path / f"drawn.{suffix}"))
    assert abs(len(before) - len(after)) < 2000


def test_without_whole_the_video_ends_with_its_windows(film: Path, tmp_path: Path) -> None:
    draw(film, tmp_path / "drawn.mp4", whole=False)
    times, _ = read(tmp_path / "drawn.mp4")
    assert times == pytest.approx(np.arange(20) / 10, abs=2e-3)
    assert not list(tmp_path.glob(".partial*"))


def test_a_target_without_a_video_suffix_raises(film: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in \.mp4, \.mkv, \.mov"):
        OverlayVideo(film, tmp_path / "drawn.gif")
    with pytest.raises(RequestError, match="cannot write"):
        OverlayVideo(film, tmp_path / "no" / "drawn.mp4")
