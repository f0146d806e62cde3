"""Normalisation and augmentation against formulas written out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.augment import AugmentConfig
from modalgate.shards.index.table import Statistics
from modalgate.shards.transforms import Preparation, draw_geometry, draw_turns, move_geometry

SPEC = ClipSpec(
    seconds=0.5,
    frames=3,
    size=16,
    short_side=16,
    fps=10.0,
    sample_rate=16000,
    flow_bound=4.0,
    statistics={
        "rgb": Statistics((100.0, 110.0, 120.0), (50.0, 40.0, 30.0)),
        "flow": Statistics((0.3, 0.1), (2.0, 0.5)),
        "depth": Statistics((3000.0,), (400.0,)),
        "audio": Statistics((0.0,), (0.1,)),
        "inertial": Statistics((0.1, -0.2, 0.9, 4.0, 0.0, -3.0), (0.5, 0.6, 0.7, 90.0, 80.0, 100.0)),
    },
)
OFF = AugmentConfig(1.0, False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(7)

    def levels(channels: int, high: int) -> torch.Tensor:
        return torch.randint(0, high, (2, 2, 3, channels, 16, 16), generator=generator)

    streams = {
        "rgb": levels(3, 256).to(torch.uint8),
        "flow": levels(2, 256).to(torch.uint8),
        "depth": levels(1, 6000).to(torch.uint16),
        "audio": torch.randn(2, 2, 8000, generator=generator) * 0.1,
        "inertial": torch.randn(2, 2, 25, 6, generator=generator),
    }
    present = {name: torch.ones(2, 2, dtype=torch.bool) for name in streams}
    return Batch(streams, present, ["a", "b"], torch.zeros(2, 2), None, torch.ones(2, dtype=torch.bool), seed)


def test_video_is_normalised_by_the_statistics() -> None:
    raw, ready = batch(), Preparation(SPEC)(batch())
    expected = (raw.streams["rgb"][1, 0, 2, 1].float() - 110) / 40
    torch.testing.assert_close(ready["rgb"][1, 0, 2, 1], expected)
    torch.testing.assert_close(ready["depth"], (raw.streams["depth"].float() - 3000) / 400)
    # No motion stays zero: only the scale of flow is normalised.
    flow = (raw.streams["flow"][0, 1, 0, 0].float() - 128) / 127 * 4 / 2
    torch.testing.assert_close(ready["flow"][0, 1, 0, 0], flow)


def test_a_tone_lands_in_its_mel_band() -> None:
    time = torch.arange(8000) / 16000
    tones = torch.stack([torch.sin(2 * np.pi * hertz * time) for hertz in (300.0, 1000.0, 4000.0)])
    mel = Preparation(SPEC).log_mel(tones[None])
    assert mel.shape[:4] == (1, 3, 1, 64)
    peaks = mel[0, :, 0].mean(dim=-1).argmax(dim=-1)

    def scale(hertz: float) -> float:
        return 2595 * np.log10(1 + hertz / 700)

    edges = np.linspace(scale(50), scale(8000), 66)
    expected = [int(np.argmin(np.abs(edges[1:-1] - scale(hertz)))) for hertz in (300, 1000, 4000)]
    np.testing.assert_allclose(peaks.numpy(), expected, atol=1)


def test_silence_gives_the_minimum_and_louder_sound_more() -> None:
    front = Preparation(SPEC)
    quiet, loud = (front.log_mel(torch.full((1, 1, 8000), level).cumsum(-1).sin() * level) for level in (0.01, 0.5))
    silence = front.log_mel(torch.zeros(1, 1, 8000))
    torch.testing.assert_close(silence, torch.full_like(silence, (np.log(1e-6) + 6) / 4))
    assert loud.mean() > quiet.mean() > silence.mean()


def test_everything_switched_off_changes_nothing() -> None:
    plain, augmented = Preparation(SPEC)(batch()), Preparation(SPEC)(batch(), OFF)
    for name, stream in plain.items():
        torch.testing.assert_close(augmented[name], stream)


@pytest.mark.parametrize(
    ("change", "streams"),
    [
        ({"crop_scale": 0.6}, {"rgb", "flow", "depth"}),
        ({"flip": True}, {"rgb", "flow", "depth"}),
        ({"brightness": 0.5}, {"rgb"}),
        ({"contrast": 0.5}, {"rgb"}),
        ({"saturation": 0.5}, {"rgb"}),
        ({"gain_db": 12.0}, {"audio"}),
        ({"noise": 0.2}, {"rgb", "flow", "depth"}),
        ({"audio_noise": 0.5}, {"audio"}),
        ({"time_mask": 0.5}, {"audio"}),
        ({"frequency_mask": 0.5}, {"audio"}),
        ({"turn": 20.0}, {"inertial"}),
        ({"signal_noise": 0.3}, {"inertial"}),
    ],
)
def test_each_setting_changes_only_its_streams(change: dict[str, float], streams: set[str]) -> None:
    plain = Preparation(SPEC)(batch())
    augmented = Preparation(SPEC)(batch(seed=3), replace(OFF, **change))  # pyright: ignore[reportArgumentType]
    assert {name for name in plain if not torch.allclose(plain[name], augmented[name])} == streams


def test_all_axes_of_a_worn_sensor_rotate_together() -> None:
    """Acceleration and angular rate rotate alike: in physical units, lengths and the angle between them stay."""
    raw = batch(seed=3)
    raw.streams["inertial"] *= torch.tensor([1.0, 1.0, 1.0, 50.0, 50.0, 50.0])
    statistics = SPEC.statistics["inertial"]
    mean, std = torch.tensor(statistics.mean), torch.tensor(statistics.std)
    turned = Preparation(SPEC)(raw, replace(OFF, turn=30.0))["inertial"] * std + mean
    products = []
    for stream in (raw.streams["inertial"], turned):
        acceleration, rate = stream[..., :3], stream[..., 3:]
        products.append([acceleration.norm(dim=-1), rate.norm(dim=-1), (acceleration * rate).sum(-1)])
    torch.testing.assert_close(products[0], products[1], rtol=1e-4, atol=1e-3)
    assert not torch.allclose(turned, raw.streams["inertial"], atol=0.01)


def test_turns_are_rotations_up_to_their_angle() -> None:
    turns = draw_turns((400, 5), 30.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand_as(turns), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(400, 5), rtol=1e-5, atol=1e-5)
    angles = ((turns.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).arccos().rad2deg()
    assert angles.max() <= 30.01
    # Uniform in both directions: half of them exceed 15 degrees, within four deviations of 2000 draws.
    assert abs(float((angles > 15).float().mean()) - 0.5) < 4 * (0.25 / 2000) ** 0.5


def test_mirroring_negates_dx_of_every_kind_of_flow() -> None:
    spec = replace(SPEC, statistics=SPEC.statistics | {"depth_flow": SPEC.statistics["flow"]})
    both = batch(seed=3)
    both.streams["depth_flow"], both.present["depth_flow"] = both.streams["flow"].clone(), both.present["flow"]
    ready = Preparation(spec)(both, replace(OFF, flip=True))
    torch.testing.assert_close(ready["depth_flow"], ready["flow"])


def test_draws_come_from_the_batch_seed_alone() -> None:
    config = AugmentConfig(noise=0.1, flip=True)
    torch.manual_seed(1)
    first = Preparation(SPEC)(batch(seed=5), config)
    torch.manual_seed(2)
    again, other = Preparation(SPEC)(batch(seed=5), config), Preparation(SPEC)(batch(seed=6), config)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["rgb"], other["rgb"])


def test_geometry_is_shared_within_a_segment_only() -> None:
    boxes, mirrored = draw_geometry((1, 2), AugmentConfig(crop_scale=0.5), torch.Generator().manual_seed(0))
    picture = torch.rand(16, 16)
    video = picture.expand(1, 2, 3, 1, 16, 16).clone()
    moved = move_geometry(video, boxes, mirrored)
    torch.testing.assert_close(moved[0, :, 0], moved[0, :, 2])
    assert not torch.allclose(moved[0, 0, 0], moved[0, 1, 0])


def test_mirroring_negates_flow_and_a_crop_magnifies_it() -> None:
    flow = torch.zeros(1, 1, 1, 2, 8, 8)
    flow[:, :, :, 0], flow[:, :, :, 1] = 3.0, 2.0
    flow[..., 0, :, :4] = 1.0
    still = torch.tensor([[[1.0, 0.0, 0.0]]])
    mirrored = move_geometry(flow, still, torch.tensor([[-1.0]]), vectors=True)
    torch.testing.assert_close(mirrored[0, 0, 0, 0, :, 4:], torch.full((8, 4), -1.0))
    torch.testing.assert_close(mirrored[0, 0, 0, 0, :, :4], torch.full((8, 4), -3.0))
    torch.testing.assert_close(mirrored[0, 0, 0, 1], torch.full((8, 8), 2.0))
    closer = move_geometry(flow, torch.tensor([[[0.5, 0.5, 0.0]]]), torch.ones(1, 1), vectors=True)
    torch.testing.assert_close(closer[0, 0, 0, 1], torch.full((8, 8), 4.0))
    torch.testing.assert_close(closer[0, 0, 0, 0, :, 2:], torch.full((8, 6), 6.0))


def test_boxes_stay_inside_the_picture() -> None:
    boxes, mirrored = draw_geometry((400, 3), AugmentConfig(crop_scale=0.4, flip=True), torch.Generator())
    scale, across, down = boxes.unbind(-1)
    assert float(scale.min()) >= 0.4
    assert float(scale.max()) <= 1
    assert (across.abs() <= 1 - scale + 1e-6).all()
    assert (down.abs() <= 1 - scale + 1e-6).all()
    assert abs(float((mirrored < 0).float().mean()) - 0.5) < 4 * 0.5 / np.sqrt(1200)
