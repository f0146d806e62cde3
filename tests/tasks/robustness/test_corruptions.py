"""Corrupted windows: measured severities equal the requested ones, and draws depend on the clip."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.transforms import stored_scale
from modalgate.tasks.robustness.corruptions import AXES, axes_of, degrade, silent
from scipy.ndimage import gaussian_filter

NAMES = ("rgb", "flow", "depth", "audio", "inertial")
MakeBatch = Callable[..., Batch]
ALTERED = [(name, axis.name) for name in NAMES for axis in axes_of(name) if axis.alter is not None]


@pytest.fixture
def batch(tiny_batch: MakeBatch) -> Batch:
    return tiny_batch(modalities=NAMES, clips=3)


def film(frames: int = 9, size: int = 24) -> Batch:
    """One clip of one window. Every pixel of a frame equals the frame's number."""
    levels = torch.arange(frames, dtype=torch.uint8).view(1, 1, frames, 1, 1, 1)
    streams = {"rgb": levels.expand(1, 1, frames, 3, size, size).clone()}
    return Batch(streams, {"rgb": torch.ones(1, 1, dtype=torch.bool)}, ["clip"], torch.zeros(1, 1))


def test_the_clean_level_changes_nothing(batch: Batch, tiny_clip: ClipSpec) -> None:
    for name, axis in ALTERED:
        found = degrade(batch, name, axis, AXES[axis].clean, tiny_clip)
        assert found.dtype == batch.streams[name].dtype
        assert torch.equal(found, batch.streams[name])
        worst = degrade(batch, name, axis, AXES[axis].levels[-1], tiny_clip)
        assert not torch.equal(worst, batch.streams[name])


def test_the_corruption_of_a_clip_does_not_depend_on_its_batch(batch: Batch, tiny_clip: ClipSpec) -> None:
    for name, axis in ALTERED:
        level = AXES[axis].levels[-1]
        whole = degrade(batch, name, axis, level, tiny_clip)
        order = [2, 0]
        part = Batch(
            {name: batch.streams[name][order]},
            {name: batch.present[name][order]},
            [batch.key[number] for number in order],
            batch.start[order],
            seed=99,
        )
        assert torch.equal(degrade(part, name, axis, level, tiny_clip), whole[order])
        # A blur is not random. At the worst level, neither is the first frame of a frozen picture.
        if axis not in ("blur", "freeze"):
            draws = [degrade(batch, name, axis, level, tiny_clip, seed=seed) for seed in range(1, 20)]
            assert not all(torch.equal(drawn, whole) for drawn in draws)


@pytest.mark.parametrize("level", AXES["snr"].levels[1:])
def test_the_measured_ratio_is_the_requested_one(level: float, batch: Batch, tiny_clip: ClipSpec) -> None:
    clean = batch.streams["audio"] * torch.tensor([0.01, 1.0, 3.0]).view(3, 1, 1)
    batch.streams["audio"] = clean
    noise = degrade(batch, "audio", "snr", level, tiny_clip) - clean
    power, lost = (part.double().square().flatten(1).sum(dim=1) for part in (clean, noise))
    np.testing.assert_allclose(10 * np.log10(power / lost), level, atol=0.1)


def test_noise_has_the_requested_deviation_and_depth_holes_stay(tiny_clip: ClipSpec) -> None:
    shape = (1, 2, 4, 1, 64, 64)
    depth = torch.full(shape, 20000.0)
    depth[..., :8] = 0
    streams = {"depth": depth.to(torch.uint16), "rgb": torch.full((1, 2, 4, 3, 64, 64), 128, dtype=torch.uint8)}
    present = {name: torch.ones(1, 2, dtype=torch.bool) for name in streams}
    batch = Batch(streams, present, ["clip"], torch.zeros(1, 2))
    noisy = degrade(batch, "depth", "noise", 2.0, tiny_clip).float()
    assert (noisy[..., :8] == 0).all()
    spread = float(stored_scale(tiny_clip, "depth")[1])
    assert float((noisy - depth)[..., 8:].std()) == pytest.approx(2 * spread, rel=0.03)
    noisy = degrade(batch, "rgb", "noise", 0.5, tiny_clip).float()
    assert float((noisy - 128).std()) == pytest.approx(0.5 * 50, rel=0.03)


def test_noise_of_sound_is_relative_to_the_clip(batch: Batch, tiny_clip: ClipSpec) -> None:
    noise = degrade(batch, "audio", "noise", 0.5, tiny_clip) - batch.streams["audio"]
    share = noise.flatten(1).square().mean(dim=1) / batch.streams["audio"].flatten(1).square().mean(dim=1)
    np.testing.assert_allclose(share, 0.25, rtol=1e-4)


@pytest.mark.parametrize("level", [1.0, 2.0])
def test_blur_equals_scipy_far_from_the_edge(level: float, batch: Batch, tiny_clip: ClipSpec) -> None:
    found = degrade(batch, "rgb", "blur", level, tiny_clip)[0, 0, 0, 1]
    expected = gaussian_filter(batch.streams["rgb"][0, 0, 0, 1].numpy().astype(float), level, truncate=3)
    np.testing.assert_allclose(found[9:-9, 9:-9], expected[9:-9, 9:-9], atol=0.6)


def test_dropped_frames_show_the_last_received_one(tiny_clip: ClipSpec) -> None:
    for seed in range(20):
        shown = degrade(film(), "rgb", "drop", 0.6, tiny_clip, seed)[0, 0, :, 0, 0, 0].int().tolist()
        received = sorted(set(shown))
        assert len(received) == 9 - round(0.6 * 8)
        for frame, level in enumerate(shown):
            before = [number for number in received if number <= frame]
            assert level == (before[-1] if before else received[0])


def test_a_frozen_picture_is_still_for_its_share(tiny_clip: ClipSpec) -> None:
    begins = set()
    for seed in range(20):
        shown = degrade(film(), "rgb", "freeze", 0.5, tiny_clip, seed)[0, 0, :, 0, 0, 0].int().tolist()
        begin = max(set(shown), key=shown.count)
        assert shown == [begin if begin <= frame <= begin + 4 else frame for frame in range(9)]
        begins.add(begin)
    assert begins <= set(range(5))
    assert len(begins) > 2
    assert len(set(degrade(film(), "rgb", "freeze", 1.0, tiny_clip)[0, 0, :, 0, 0, 0].tolist())) == 1


def test_holes_have_the_requested_share_and_do_not_move(tiny_clip: ClipSpec) -> None:
    for level in AXES["holes"].levels:
        streams = {"depth": torch.full((1, 2, 3, 1, 40, 40), 900).to(torch.uint16)}
        batch = Batch(streams, {"depth": torch.ones(1, 2, dtype=torch.bool)}, ["clip"], torch.zeros(1, 2))
        lost = degrade(batch, "depth", "holes", level, tiny_clip).to(torch.int32) == 0
        assert float(lost.float().mean()) == pytest.approx(level, abs=1e-3)
        assert torch.equal(lost[:, :, 0], lost[:, :, 1])


def test_dead_channels_read_zero(batch: Batch, tiny_clip: ClipSpec) -> None:
    dead = (degrade(batch, "inertial", "axes", 0.4, tiny_clip) == 0).all(dim=2)
    assert (dead.sum(dim=-1) == round(0.4 * 6)).all()


def test_absent_clips_stay_unchanged(tiny_batch: MakeBatch, tiny_clip: ClipSpec) -> None:
    batch = tiny_batch(modalities=("rgb",), clips=2, absent={("rgb", 1)})
    noisy = degrade(batch, "rgb", "noise", 2.0, tiny_clip)
    assert torch.equal(noisy[1], batch.streams["rgb"][1])
    assert not torch.equal(noisy[0], batch.streams["rgb"][0])


def test_silence_is_sixty_decibels_down() -> None:
    assert silent(torch.tensor([0.0, 0.9e-3, 1.1e-3, 0.5]).view(4, 1, 1).expand(4, 2, 100)).tolist() == [1, 1, 0, 0]


def test_axes_of_each_kind() -> None:
    assert [axis.name for axis in axes_of("rgb")] == ["noise", "blur", "drop", "freeze", "desync", "swap"]
    assert [axis.name for axis in axes_of("audio")] == ["snr", "desync", "swap"]
    assert [axis.name for axis in axes_of("depth", ["holes", "snr"])] == ["holes"]
    assert [axis.name for axis in axes_of("inertial")] == ["noise", "axes", "desync", "swap"]
    with pytest.raises(RequestError, match="blur"):
        axes_of("rgb", ["blurr"])
    assert [AXES["desync"].severity(level) for level in AXES["desync"].levels] == [4, 3, 2, 1, 0, 1, 2, 3, 4]
    assert AXES["snr"].severity(math.inf) == 0
    assert AXES["snr"].severity(-10.0) == 6
    assert AXES["blur"].label(0.5) == "0.5 px"
