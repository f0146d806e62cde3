"""Flow against a known motion, its one-byte form, and its quality after H.264."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from modalgate.shards.clips.decode import decode_frames
from modalgate.shards.media.flow import colour_flow, compute_flow, dequantise_flow, quantise_flow
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import modality
from modalgate.shards.packing.encode import encode_clip
from modalgate.shards.packing.recording import Recording
from modalgate.shards.packing.sources import Source


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -1), (-3, 2)])
def test_known_translation(drifting: Callable, dx: int, dy: int) -> None:
    flow = compute_flow(drifting(5, 64, 80, dx, dy))
    assert flow.shape == (5, 2, 64, 80)
    inner = flow[:, :, 12:-12, 12:-12]
    np.testing.assert_allclose(np.median(inner, axis=(0, 2, 3)), (dx, dy), atol=0.1)
    assert np.percentile(np.abs(inner - np.array([dx, dy])[:, None, None]), 90) < 0.5
    # The last entry is measured, not copied.
    assert np.abs(flow[-1] - flow[-2]).max() > 0


def relief(drifting: Callable, frames: int = 5, dx: int = 2, dy: int = 0) -> np.ndarray:
    """A bumpy body 2 to 2.4 m away that moves before nothing, in millimetres."""
    bumps = 2000 + drifting(frames, 64, 80, dx, dy)[..., 0].astype(float) * 400 / 255
    rows, columns = np.mgrid[:64, :80]
    for number, frame in enumerate(bumps):
        body = (abs(rows - 32 - number * dy) < 20) & (abs(columns - 36 - number * dx) < 18)
        frame[~body] = 0
    return bumps.astype(np.uint16)


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -1), (-2, 1)])
def test_depth_flow_of_a_body_without_background(drifting: Callable, dx: int, dy: int) -> None:
    depth = relief(drifting, dx=dx, dy=dy)
    flow = compute_flow(depth)
    assert flow.shape == (5, 2, 64, 80)
    inner = np.stack([field[:, 20:44, 26:46] for field in flow[:2]])
    np.testing.assert_allclose(np.median(inner, axis=(0, 2, 3)), (dx, dy), atol=0.15)
    assert np.median(flow[-1, :, 22:42, 30:44], axis=(1, 2)) == pytest.approx([dx, dy], abs=0.3)


def test_flow_of_depth_does_not_depend_on_unit_or_distance(drifting: Callable) -> None:
    depth = relief(drifting)
    plain = compute_flow(depth)
    for other in (np.where(depth, depth * 5, 0), np.where(depth > 0, depth + 1500, 0)):
        flow = compute_flow(other.astype(np.uint16))
        assert np.median(np.abs(flow - plain)[:, :, 20:44, 26:46]) < 0.05
    # Pair by pair: later frames of the recording change nothing.
    np.testing.assert_array_equal(compute_flow(depth[:2])[0], plain[0])


def test_unmeasured_depth_has_no_motion() -> None:
    assert not compute_flow(np.zeros((3, 64, 80), np.uint16)).any()
    assert np.abs(compute_flow(np.full((3, 64, 80), 2500, np.uint16))).max() < 1e-3
    assert compute_flow(np.full((1, 64, 80), 9, np.uint16)).shape == (1, 2, 64, 80)


def test_pictures_too_small_to_search_have_no_motion(drifting: Callable) -> None:
    assert not compute_flow(drifting(3, 8, 8)).any()


@pytest.mark.parametrize("bound", [4.0, 14.0, 40.0])
def test_quantisation(bound: float) -> None:
    flow = np.random.default_rng(0).uniform(-1.5 * bound, 1.5 * bound, (3, 2, 20, 20)).astype(np.float32)
    stored = quantise_flow(flow, bound)
    assert stored.dtype == np.uint8
    error = np.abs(dequantise_flow(stored, bound) - np.clip(flow, -bound, bound))
    # Half a step of the byte scale, plus the rounding of float32.
    assert error.max() <= bound / 254 * 1.001
    assert error.max() > bound / 254 * 0.9
    assert (dequantise_flow(quantise_flow(np.zeros(4), bound), bound) == 0).all()


def test_stored_through_h264() -> None:
    """Median end-point error after H.264, for turbulence that no frame predicts from the one before."""
    settings = PackSettings(modalities=("flow",), fps=10.0)
    noise = np.random.default_rng(0).normal(size=(12, 2, 112, 112)).astype(np.float32)
    flow = np.stack([[cv2.GaussianBlur(component, (0, 0), 3) for component in field] for field in noise])
    flow *= 3 / flow.std()
    recording = Recording(0.0, 1.2, {"flow": flow}, {})
    data = encode_clip(Source("a", {"video": Path("a.mp4")}), "a", recording, settings).members["flow.mp4"]
    read = decode_frames(data, np.arange(12) / 10 + 0.05, 10.0, modality("flow"), 112, (0.0, 0.0))
    error = np.linalg.norm(dequantise_flow(read, settings.flow_bound) - flow, axis=1)
    assert np.median(error) <= 0.25
    assert np.percentile(error, 95) <= 0.5


def test_colours() -> None:
    field = np.zeros((2, 4, 6), np.float32)
    field[0, :, 2:4], field[0, :, 4:] = 2.0, -2.0
    picture = colour_flow(field, 2.0)
    assert picture.shape == (4, 6, 3)
    np.testing.assert_array_equal(picture[0, 0], (255, 255, 255))
    np.testing.assert_array_equal(picture[0, 2], (255, 0, 0))
    np.testing.assert_array_equal(picture[0, 4], (0, 255, 255))
    # Half the speed is half the saturation.
    np.testing.assert_allclose(colour_flow(field, 4.0)[0, 2], (255, 127, 127), atol=1)
