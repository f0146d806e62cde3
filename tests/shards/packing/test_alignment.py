"""Flash and beep on the whole way from a recording to a window: they must stay together."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream

PACKED = 20.0
# Windows of 0.6 s with the 12 packed frames: one frame lasts a twentieth of a second.
REQUEST = ClipRequest(("rgb", "audio"), 3, 0.6, 12, 32)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("fps", [24.0, 25.0, 30000 / 1001, 30.0])
def test_flash_and_beep_stay_within_a_frame(
    tmp_path: Path, beep: Callable, delayed: Callable, fps: float, rate: int
) -> None:
    """The file starts 0.4 s late and its codec reorders frames. Every segment of every window is checked."""
    frames = np.full((round(4 * fps), 32, 32, 3), 20, np.uint8)
    sound = np.zeros(4 * rate, np.float32)
    for second in (0.5, 1.3, 2.2, 3.4):
        first = round(second * fps)
        frames[first : first + round(0.1 * fps)] = 235
        sound += beep(4.0, first / fps, 0.1, rate)
    plain = tmp_path / "plain.mp4"
    options = {"bf": "2", "crf": "10"}
    write_video(plain, frames, fps, sound=sound, sample_rate=rate, sound_codec="aac", options=options)
    (tmp_path / "media").mkdir()
    delayed(plain, tmp_path / "media" / "late.mkv", 0.4)
    settings = PackSettings(modalities=("rgb", "audio"), size=32, fps=PACKED)
    index = pack(tmp_path / "media", tmp_path / "shards", settings, workers=1)
    stream, seen = ClipStream(index, REQUEST, 1, seed=1), 0
    for batch in (*islice(stream.train(), 20), *stream.evaluate()):
        for segment in range(3):
            bright = batch.streams["rgb"][0, segment].float().mean(dim=(1, 2, 3)).numpy() > 128
            loud = batch.streams["audio"][0, segment].abs().numpy() > 0.2
            # A flash cut by the window's edge has no visible start.
            starts = np.flatnonzero(np.diff(bright.astype(int)) == 1) + 1
            for start in starts[:1]:
                beeped = (
                    np.flatnonzero(loud[round(max(start - 2, 0) * 800) :])[0] / 16000 + max(start - 2, 0) / PACKED
                )
                assert abs(beeped - start / PACKED) <= 1 / PACKED
                seen += 1
    assert seen >= 15
