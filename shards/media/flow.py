"""Optical flow between successive frames, its one-byte form, and its picture."""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray


def compute_flow(frames: NDArray[np.integer]) -> NDArray[np.float32]:
    """Returns the optical flow (T, 2, H, W) of T frames, as (dx, dy) in pixel/frame.

    `frames`: RGB (T, H, W, 3) uint8, or depth (T, H, W) uint16.

    Entry t is the motion from frame t to t + 1. The last frame has no next one: its entry is the motion that led to
    it, searched from it backward and negated. A copy of the entry before would mark the end of every clip. Flow of
    depth is the motion across the picture:
    an object that moves straight at the camera has almost none. The method is dense inverse search (Kroeger et al.,
    "Fast Optical Flow using Dense Inverse Search", ECCV 2016). Pictures with a side below 12 pixels have zero flow.
    """
    if frames.ndim == 4:
        pairs = [*pairwise([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])]
    else:
        pairs = [_stretch(frames[number : number + 2]) for number in range(len(frames) - 1)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((len(frames), 2, *frames.shape[1:3]), np.float32)
    # Below 12 pixels the search has no pyramid level to work on.
    if min(frames.shape[1:3]) >= 12:
        for number, (before, after) in enumerate(pairs):
            flow[number] = search.calc(before, after, np.empty(0)).transpose(2, 0, 1)
        if pairs:
            before, after = pairs[-1]
            flow[-1] = -search.calc(after, before, np.empty(0)).transpose(2, 0, 1)
    return flow


def _stretch(pair: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Returns a pair of depth frames (2, H, W) as gray levels for the search: near is dark, unmeasured white.

    Both frames get the same levels, chosen from this pair alone. So flow does not depend on where in a recording the
    pair is read.
    """
    measured = pair[pair > 0]
    if not len(measured):
        return np.zeros(pair.shape, np.uint8)
    near, far = np.percentile(measured, (1, 99))
    # The noise of a flat wall must not fill the range.
    level = (pair - near) / max(far - near, 0.25 * far)
    return np.where(pair > 0, 216 * np.clip(level, 0, 1), 255).astype(np.uint8)


def quantise_flow(flow: NDArray[np.floating], bound: float) -> NDArray[np.uint8]:
    """Converts pixel/frame to bytes, `128 + 127 v / bound`, clipped at the bound. 128 means no motion.

    >>> quantise_flow(np.array([-20.0, 0.0, 7.0]), bound=14.0).tolist()
    [1, 128, 192]
    """
    return np.round(128 + 127 * np.clip(flow / bound, -1, 1)).astype(np.uint8)


def dequantise_flow(stored: NDArray[np.uint8], bound: float) -> NDArray[np.float32]:
    """Converts bytes to pixel/frame, the inverse of `quantise_flow`."""
    return (stored.astype(np.float32) - np.float32(128)) * np.float32(bound / 127)


def colour_flow(flow: NDArray[np.float32], full: float) -> NDArray[np.uint8]:
    """Returns a flow field (2, H, W) as an RGB picture (H, W, 3).

    Hue is direction: red is right, then clockwise yellow, green and blue. Saturation is speed, and full from `full`
    pixel/frame on. No motion is white.
    """
    speed, angle = cv2.cartToPolar(flow[0], flow[1], angleInDegrees=True)
    hue = (np.asarray(angle) / 2).astype(np.uint8) % 180
    saturation = np.clip(np.asarray(speed) / full, 0, 1) * 255
    picture = np.stack([hue, saturation.astype(np.uint8), np.full_like(hue, 255)], axis=-1)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_HSV2RGB), np.uint8)
