"""The long recording that `demo` predicts: generated clips end to end, the camera broken in the middle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...shards.media.container_io import write_video
from ...shards.worlds.render import FPS, FRAMES, SAMPLE_RATE, render
from ...shards.worlds.scene import draw_scene

CLIPS = 12
# Standard deviation of the camera's noise, in that of the recording's pixels.
LEVEL = 2.0


@dataclass(frozen=True)
class Recording:
    """Files of pictures with sound, and of depth; `broken`: the seconds between which the pictures are noise."""

    video: Path
    depth: Path
    broken: tuple[float, float]


def write_recording(folder: Path, preset: str, seed: int, first: int) -> Recording:
    """Writes clips from number `first` of the world, which no split holds, with noise over the pictures of the
    middle third.
    """
    clips = [render(draw_scene(preset, seed, first + number)) for number in range(CLIPS)]
    rgb = np.concatenate([clip.rgb for clip in clips if clip.rgb is not None])
    begin, end = (CLIPS * FRAMES * part // 3 for part in (1, 2))
    draws = np.random.default_rng(seed)
    noise = LEVEL * rgb.std() * draws.standard_normal(rgb[begin:end].shape, np.float32)
    rgb[begin:end] = np.clip(rgb[begin:end] + noise, 0, 255).round()
    folder.mkdir(parents=True, exist_ok=True)
    found = Recording(folder / "recording.mkv", folder / "recording-depth.mkv", (begin / FPS, end / FPS))
    write_video(
        found.video,
        rgb,
        FPS,
        pixel_format="yuv444p",
        options={"qp": "0", "preset": "ultrafast"},
        sound=np.concatenate([clip.audio for clip in clips if clip.audio is not None]),
        sample_rate=SAMPLE_RATE,
    )
    depth = np.concatenate([clip.depth for clip in clips if clip.depth is not None])
    write_video(found.depth, depth, FPS, codec="ffv1", pixel_format="gray16le")
    return found
