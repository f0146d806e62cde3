"""Decoding only the requested frames equals decoding everything and picking them."""

import io

import numpy as np
import pytest
from modalgate.shards.clips.decode import decode_frames, decode_signal, decode_sound
from modalgate.shards.media.container_io import iterate_frames, write_video, write_wave
from modalgate.shards.modality import Modality, modality

FPS, FRAMES = 10.0, 70


def numbered(gop: str) -> bytes:
    """A gray video (depth member) whose frame n holds the value 100 n everywhere."""
    frames = np.stack([np.full((16, 24), 100 * number, np.uint16) for number in range(FRAMES)])
    target = io.BytesIO()
    options = {"g": gop}
    write_video(
        target, frames, FPS, codec="ffv1", pixel_format="gray16le", container_format="matroska", options=options
    )
    return target.getvalue()


@pytest.mark.parametrize("gop", ["1", "8", "100"])
def test_each_time_gets_the_frame_shown_then(gop: str) -> None:
    times = np.random.default_rng(0).uniform(0, FRAMES / FPS, (5, 4))
    pictures = decode_frames(numbered(gop), times, FPS, modality("depth"), 16, (0.5, 0.5))
    assert pictures.shape == (5, 4, 1, 16, 16)
    assert pictures.dtype == np.uint16
    np.testing.assert_array_equal(pictures[..., 0, 8, 8], 100 * np.floor(times * FPS).astype(int))


def test_past_the_end_the_last_frame_is_repeated() -> None:
    pictures = decode_frames(numbered("8"), np.array([6.95, 7.4]), FPS, modality("depth"), 16, (0, 0))
    assert (pictures == 100 * (FRAMES - 1)).all()


def moving_rgb() -> bytes:
    generator = np.random.default_rng(1)
    frames = generator.integers(60, 200, (40, 4, 6, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    target = io.BytesIO()
    options = {"crf": "10", "g": "8", "bf": "0"}
    write_video(target, frames, FPS, container_format="mp4", options=options)
    return target.getvalue()


def test_the_fast_rgb_path_equals_the_slow_one() -> None:
    data = moving_rgb()
    slow = np.stack([frame.to_ndarray(format="rgb24") for _, frame in iterate_frames(io.BytesIO(data))])
    times = np.array([0.05, 0.95, 1.05, 3.85])
    fast = decode_frames(data, times, FPS, modality("rgb"), 32, (0.0, 1.0))
    wanted = slow[[0, 9, 10, 38], :, 16:].transpose(0, 3, 1, 2)
    # The two conversions round differently, and one smooths chroma across block edges.
    difference = np.abs(fast.astype(int) - wanted)
    assert np.median(difference) <= 3
    assert np.abs(fast.astype(int) - slow[[1, 10, 11, 39], :, 16:].transpose(0, 3, 1, 2)).mean() > 20


def test_flow_halves_become_channels() -> None:
    frames = np.concatenate([np.full((6, 16, 16), 90, np.uint8), np.full((6, 16, 16), 170, np.uint8)], axis=1)
    target = io.BytesIO()
    write_video(target, frames, FPS, container_format="mp4", options={"crf": "4", "g": "8", "bf": "0"})
    flow = decode_frames(target.getvalue(), np.array([0.25]), FPS, modality("flow"), 16, (0.5, 0.5))
    assert flow.shape == (1, 2, 16, 16)
    assert abs(int(flow[0, 0].mean()) - 90) <= 1
    assert abs(int(flow[0, 1].mean()) - 170) <= 1


def test_invalid_bytes_raise_an_error_that_the_stream_catches() -> None:
    with pytest.raises((ValueError, OSError)):
        decode_frames(b"no video", np.array([0.0]), FPS, modality("rgb"), 16, (0, 0))


def test_sound_windows_are_cut_by_seconds_and_end_in_silence() -> None:
    ramp = np.linspace(-1, 1, 1000, dtype=np.float32)
    target = io.BytesIO()
    write_wave(target, ramp, 100)
    windows = decode_sound(target.getvalue(), np.array([2.5, 9.5]), 1.0, 100)
    np.testing.assert_allclose(windows[0], ramp[250:350], atol=1e-4)
    np.testing.assert_allclose(windows[1, :50], ramp[950:], atol=1e-4)
    assert (windows[1, 50:] == 0).all()


def test_signals_are_interpolated_at_the_requested_rate() -> None:
    values = np.stack([np.arange(100.0), 5 - np.arange(100.0)], axis=1).astype(np.float32)
    target = io.BytesIO()
    np.save(target, values)
    pair = Modality("pair", "signal", 2, "pair.npy", None, "", -1, 1)
    windows = decode_signal(target.getvalue(), pair, 10.0, np.array([1.0, 3.0]), 50, 1 / 25)
    assert windows.shape == (2, 50, 2)
    np.testing.assert_allclose(windows[1, :, 0], 30 + np.arange(50) * 10 / 25, rtol=1e-5)
    np.testing.assert_allclose(windows[1, :, 1], 5 - (30 + np.arange(50) * 10 / 25), rtol=1e-5)
