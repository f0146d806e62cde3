"""Films for the benchmarks: a texture that moves, with a tone."""

import shutil
from pathlib import Path

import cv2
import numpy as np
from modalgate.shards.media.container_io import write_video
from numpy.typing import NDArray


def texture(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """A smooth texture that moves by (2, 1) pixel/frame, (T, H, W, 3)."""
    noise = np.random.default_rng(0).random((height + frames, width + 2 * frames, 3)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3))
    canvas = np.asarray(cv2.normalize(smooth, np.empty(0), 0, 255, cv2.NORM_MINMAX)).astype(np.uint8)
    return np.stack([canvas[n : n + height, 2 * n : 2 * n + width] for n in range(frames)])


def write_films(folder: Path, count: int) -> Path:
    """`count` films of 4 s at 320 x 240 and 30 frames per second, with sound; they differ in name only."""
    folder.mkdir()
    times = np.arange(4 * 48000) / 48000
    sound = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    first = folder / "film000.mp4"
    write_video(first, texture(120, 240, 320), 30, sound=sound, sample_rate=48000, sound_codec="aac")
    for number in range(1, count):
        shutil.copy(first, folder / f"film{number:03d}.mp4")
    return folder
