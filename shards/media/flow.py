"""Optical flow between successive frames, its one-byte form, and a picture of it."""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray


def compute_flow(frames: NDArray[np.integer]) -> NDArray[np.float32]:
    """Dense inverse search (Kroeger et al. 2016) on frames of RGB (T, H, W, 3) uint8, or of depth (T, H, W) uint16:
    (T, 2, H, W) in pixel/frame, (dx, dy).

    Entry t leads from frame t to t + 1; the last repeats the one before, so that flow is as long as its video. Of
    depth it is the motion across the picture: what comes straight nearer has next to none.
    """
    if frames.ndim == 4:
        pairs = pairwise([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    else:
        pairs = (_stretch(frames[number : number + 2]) for number in range(len(frames) - 1))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((len(frames), 2, *frames.shape[1:3]), np.float32)
    # Below 12 pixels the search has no pyramid level to work on: nothing can be seen moving there.
    if min(frames.shape[1:3]) >= 12:
        for number, (before, after) in enumerate(pairs):
            flow[number] = search.calc(before, after, np.empty(0)).transpose(2, 0, 1)
    if len(flow) > 1:
        flow[-1] = flow[-2]
    return flow


def _stretch(pair: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Depth (2, H, W) as grays that the search can follow, near dark, nothing measured white.

    Both frames are stretched alike, by themselves alone: flow is the same wherever in a recording its pair is read.
    """
    measured = pair[pair > 0]
    if not len(measured):
        return np.zeros(pair.shape, np.uint8)
    near, far = np.percentile(measured, (1, 99))
    # The noise of a flat wall is not to fill the range.
    level = (pair - near) / max(far - near, 0.25 * far)
    return np.where(pair > 0, 216 * np.clip(level, 0, 1), 255).astype(np.uint8)


def quantise_flow(flow: NDArray[np.floating], bound: float) -> NDArray[np.uint8]:
    """Pixel/frame to bytes: `128 + 127 v / bound`, cut at the bound; 128 is rest."""
    return np.round(128 + 127 * np.clip(flow / bound, -1, 1)).astype(np.uint8)


def dequantise_flow(stored: NDArray[np.uint8], bound: float) -> NDArray[np.float32]:
    """Bytes to pixel/frame."""
    return (stored.astype(np.float32) - np.float32(128)) * np.float32(bound / 127)


def colour_flow(flow: NDArray[np.float32], full: float) -> NDArray[np.uint8]:
    """One flow field (2, H, W) as RGB (H, W, 3): hue is direction (red to the right, then yellow, green and blue
    clockwise), saturation is speed, complete at `full` pixel/frame; rest is white."""
    speed, angle = cv2.cartToPolar(flow[0], flow[1], angleInDegrees=True)
    hue = (np.asarray(angle) / 2).astype(np.uint8) % 180
    saturation = np.clip(np.asarray(speed) / full, 0, 1) * 255
    picture = np.stack([hue, saturation.astype(np.uint8), np.full_like(hue, 255)], axis=-1)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_HSV2RGB), np.uint8)
