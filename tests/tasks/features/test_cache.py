"""The feature cache is used for the same encoder, shards and views only."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError
from modalgate.shards.index.table import Index, Sample, Shard
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.stream import ClipRequest
from modalgate.tasks.features.cache import cached_features, fingerprint
from modalgate.tasks.features.extract import extract_features

Build = Callable[..., Backbone]


@dataclass
class Held:
    """A stream of one batch in memory that counts its passes."""

    batch: Batch
    index: Index
    request: ClipRequest
    batch_size: int = 3
    passes: int = 0

    def evaluate(self) -> Iterator[Batch]:
        self.passes += 1
        yield self.batch


@pytest.fixture
def stream(tiny_batch: Callable[..., Batch]) -> Any:
    batch = tiny_batch(clips=3, segments=2, absent={("audio", 1)})
    samples = tuple(
        Sample(key, "clips-0.tar", 2.0, {"label": "a"}, {"rgb.mp4": (512 * number, 99)})
        for number, key in enumerate(batch.key)
    )
    shard = Shard("clips-0.tar", 3, 4096, "ab" * 32, {"rgb": 3, "audio": 2})
    return Held(batch, Index(PackSettings(), {}, (shard,), samples), ClipRequest(("rgb", "audio"), 2, 0.4, 2, 32))


def _nudged(backbone: Backbone) -> Backbone:
    """The backbone with the smallest possible change of one weight."""
    with torch.no_grad():
        weight = next(backbone.parameters()).view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    return backbone


def test_cached_features_are_equal_to_the_last_bit(
    tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any, tmp_path: Path
) -> None:
    [expected] = extract_features([tiny_backbone()], tiny_clip, stream)
    counted: list[int] = []
    for _ in range(2):
        [found] = cached_features(
            [tiny_backbone()], tiny_clip, stream, tmp_path / "features", progress=counted.append
        )
        assert found.modalities == expected.modalities
        assert found.keys == expected.keys
        np.testing.assert_array_equal(found.weights, expected.weights)
        for name in ("fused", "rgb", "audio", "concat"):
            np.testing.assert_array_equal(found.values[name], expected.values[name])
            np.testing.assert_array_equal(found.present[name], expected.present[name])
    assert stream.passes == 2  # the plain extraction and the first cached one
    assert counted == [3, 3]


def test_only_a_changed_encoder_is_extracted_again(
    tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any, tmp_path: Path
) -> None:
    cached_features([tiny_backbone()], tiny_clip, stream, tmp_path)
    cached_features([tiny_backbone(), _nudged(tiny_backbone())], tiny_clip, stream, tmp_path)
    assert stream.passes == 2
    assert len(list(tmp_path.iterdir())) == 2
    cached_features([_nudged(tiny_backbone()), tiny_backbone()], tiny_clip, stream, tmp_path)
    assert stream.passes == 2


def test_a_changed_gain_changes_the_features(
    planted_backbone: Build, tiny_clip: ClipSpec, stream: Any, tmp_path: Path
) -> None:
    [plain], [doubled] = (
        cached_features([planted_backbone(gain=gain)], tiny_clip, stream, tmp_path) for gain in (1.0, 2.0)
    )
    assert stream.passes == 2
    np.testing.assert_allclose(doubled.values["fused"][:, 0], 2 * plain.values["fused"][:, 0], rtol=1e-5)
    np.testing.assert_array_equal(doubled.values["fused"][:, 1], plain.values["fused"][:, 1])


@pytest.mark.parametrize("what", ["bytes", "order", "fewer", "views", "frames", "spec"])
def test_changed_shards_or_views_are_extracted_again(
    tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any, tmp_path: Path, what: str
) -> None:
    cached_features([tiny_backbone()], tiny_clip, stream, tmp_path)
    index = stream.index
    match what:
        case "bytes":
            stream.index = replace(index, shards=(replace(index.shards[0], sha256="cd" * 32),))
        case "order":
            stream.index = replace(index, samples=index.samples[::-1])
        case "fewer":
            stream.index = replace(index, samples=index.samples[:2])
        case "views":
            stream.request = replace(stream.request, segments=3)
        case "frames":
            stream.request = replace(stream.request, frames=4)
        case "spec":
            tiny_clip = replace(tiny_clip, flow_bound=7.0)
    cached_features([tiny_backbone()], tiny_clip, stream, tmp_path)
    assert stream.passes == 2


def test_labels_do_not_change_the_fingerprint(tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any) -> None:
    before = fingerprint(tiny_backbone(), tiny_clip, stream.index, stream.request)
    relabelled = replace(stream.index, samples=tuple(replace(s, labels={"b": "x"}) for s in stream.index.samples))
    assert fingerprint(tiny_backbone(), tiny_clip, relabelled, stream.request) == before


def test_a_file_with_another_fingerprint_raises(
    tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any, tmp_path: Path
) -> None:
    mine, other = (
        fingerprint(backbone, tiny_clip, stream.index, stream.request)
        for backbone in (tiny_backbone(), _nudged(tiny_backbone()))
    )
    cached_features([_nudged(tiny_backbone())], tiny_clip, stream, tmp_path)
    (tmp_path / other.name).rename(tmp_path / mine.name)
    with pytest.raises(DataError, match="different encoder"):
        cached_features([tiny_backbone()], tiny_clip, stream, tmp_path)


def test_a_damaged_file_raises(tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any, tmp_path: Path) -> None:
    cached_features([tiny_backbone()], tiny_clip, stream, tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{path.name}' are damaged"):
        cached_features([tiny_backbone()], tiny_clip, stream, tmp_path)


def test_without_a_folder_nothing_is_stored(
    tiny_backbone: Build, tiny_clip: ClipSpec, stream: Any, tmp_path: Path
) -> None:
    for _ in range(2):
        cached_features([tiny_backbone()], tiny_clip, stream, None)
    assert stream.passes == 2
    assert not list(tmp_path.iterdir())
