"""Frozen features of batches held in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.transforms import Preparation
from modalgate.tasks.features.extract import extract_features

Build, MakeBatch = Callable[..., Backbone], Callable[..., Batch]


@dataclass
class Held:
    """A stream with its batches in memory."""

    batches: list[Batch]

    def evaluate(self) -> Iterator[Batch]:
        return iter(self.batches)


@pytest.fixture
def stream(tiny_batch: MakeBatch) -> Any:
    """Two batches of three clips. The last row is padding. Clip 1 of each batch has no sound."""
    return Held(
        [
            tiny_batch(clips=3, segments=3, absent={("audio", 1)}, seed=1),
            tiny_batch(clips=3, segments=3, absent={("audio", 1)}, seed=2, valid=[True, True, False]),
        ]
    )


def test_features_are_means_over_views_in_clip_order(tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any) -> None:
    backbone, counted = tiny_backbone(modality_dropout=1.0).train(), []
    [features] = extract_features([backbone], tiny_clip, stream, progress=counted.append)
    assert features.keys == ["clip-1-0", "clip-1-1", "clip-1-2", "clip-2-0", "clip-2-1"]
    assert counted == [3, 2]
    assert {name: len(values) for name, values in features.values.items()} == dict.fromkeys(features.values, 5)
    assert features.weights.shape == (5, 2)
    preparation, row = Preparation(tiny_clip), 0
    for batch in stream.batches:
        streams = preparation(batch)
        for clip in range(int(batch.valid.sum())):
            views = []
            for segment in range(3):
                one = {name: s[clip : clip + 1, segment : segment + 1] for name, s in streams.items()}
                mask = {name: p[clip : clip + 1, segment : segment + 1] for name, p in batch.present.items()}
                with torch.no_grad():
                    views.append(backbone(one, mask, batch.start[:1, :1]))
            for name in ("rgb", "audio"):
                mean = torch.stack([view.features[name][0, 0] for view in views]).mean(dim=0)
                np.testing.assert_allclose(features.values[name][row], mean, rtol=1e-4, atol=1e-5)
            fused = torch.stack([view.embedding[0, 0] for view in views]).mean(dim=0)
            np.testing.assert_allclose(features.values["fused"][row], fused, rtol=1e-4, atol=1e-5)
            weights = torch.stack([view.weights[0, 0] for view in views]).mean(dim=0)
            np.testing.assert_allclose(features.weights[row], weights, rtol=1e-4, atol=1e-5)
            row += 1
    assert row == 5


def test_presence_and_concatenated_features(tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any) -> None:
    [features] = extract_features([tiny_backbone()], tiny_clip, stream)
    assert features.present["audio"].tolist() == [True, False, True, True, False]
    for name in ("rgb", "fused", "concat"):
        assert features.present[name].all()
    assert (features.values["audio"][~features.present["audio"]] == 0).all()
    joined = np.concatenate([features.values["rgb"], features.values["audio"]], axis=1)
    np.testing.assert_array_equal(features.values["concat"], joined)
    assert features.values["concat"].shape == (5, 16)
    assert {array.dtype for array in features.values.values()} == {np.dtype(np.float32)}


def test_views_without_the_modality_are_not_averaged(
    tiny_backbone: Build, tiny_clip: ClipSpec, tiny_batch: MakeBatch
) -> None:
    whole, partly = tiny_batch(clips=2, segments=1, seed=3), tiny_batch(clips=2, segments=2, seed=3)
    for name, stream in whole.streams.items():
        partly.streams[name] = stream.repeat(1, 2, *[1] * (stream.ndim - 2))
    partly.present["audio"][0, 1] = False
    backbone = tiny_backbone()
    [expected] = extract_features([backbone], tiny_clip, Held([whole]))  # pyright: ignore[reportArgumentType]
    [found] = extract_features([backbone], tiny_clip, Held([partly]))  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(found.values["audio"], expected.values["audio"], rtol=1e-4, atol=1e-5)
    assert found.present["audio"].all()


def test_no_gradient_is_kept(tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any) -> None:
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    extract_features([backbone], tiny_clip, stream)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_several_encoders_share_one_pass(planted_backbone: Build, tiny_clip: ClipSpec, stream: Any) -> None:
    first, second = planted_backbone(gain=1.0), planted_backbone(gain=2.0)
    one, two = extract_features([first, second], tiny_clip, stream)
    expected, preparation = [], Preparation(tiny_clip)
    for batch in stream.batches:
        streams = preparation(batch)
        means = {name: value.flatten(2).mean(dim=(1, 2)) for name, value in streams.items()}
        for clip in range(int(batch.valid.sum())):
            heard = [float(means[name][clip]) for name in ("rgb", "audio") if batch.present[name][clip].any()]
            expected.append(sum(heard) / len(heard))
    np.testing.assert_allclose(one.values["fused"][:, 0], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(two.values["fused"][:, 0], 2 * np.array(expected), rtol=1e-4, atol=1e-4)
