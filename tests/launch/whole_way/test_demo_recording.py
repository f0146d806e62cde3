"""The long recording of the demo: synchronous clips end to end, with noise on the middle of the picture stream."""

from pathlib import Path

import numpy as np
from modalgate.launch.whole_way.demo_recording import CLIPS, write_recording
from modalgate.shards.media.container_io import FrameReader, iterate_frames
from modalgate.shards.media.soundtrack import read_sound
from modalgate.shards.worlds.render import FRAMES, render
from modalgate.shards.worlds.scene import draw_scene


def test_only_the_picture_fails_and_only_in_the_middle(tmp_path: Path) -> None:
    found = write_recording(tmp_path / "new", "melee", 3, 50)
    clips = [render(draw_scene("melee", 3, 50 + number)) for number in range(CLIPS)]
    rgb = np.stack([FrameReader().read(frame) for _, frame in iterate_frames(found.video)]).astype(int)
    depth = np.stack([FrameReader("gray16le").read(frame) for _, frame in iterate_frames(found.depth)])
    assert found.broken == (12.0, 24.0)
    begin, end = 4 * FRAMES, 8 * FRAMES
    away = np.abs(rgb - np.concatenate([clip.rgb for clip in clips if clip.rgb is not None]).astype(int))
    assert away[:begin].max() <= 2
    assert away[end:].max() <= 2
    assert away[begin:end].mean() > 30
    assert np.array_equal(depth, np.concatenate([clip.depth for clip in clips if clip.depth is not None]))
    sound = read_sound(found.video, 8000)[1]
    heard = np.concatenate([clip.audio for clip in clips if clip.audio is not None])
    assert len(sound) == len(heard)
    assert np.abs(sound - heard).max() < 1.5 / 32768
