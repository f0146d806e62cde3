"""Stored features equal encoding the media, and form batches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError
from modalgate.shards.transforms import Preparation
from modalgate.tasks.fusion_study.feature_bank import (
    Experts,
    StoredClips,
    StoredStream,
    load_stored,
    save_stored,
    store_clips,
)

MakeBatch = Callable[..., Batch]
ABSENT = {("audio", 1), ("audio", 3)}


class Batches:
    """A stream of given batches."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = batches

    def evaluate(self) -> Iterator[Batch]:
        return iter(self.batches)


@pytest.fixture
def batches(tiny_batch: MakeBatch) -> list[Batch]:
    return [
        tiny_batch(label=[0, 1, 1, 0], absent=ABSENT),
        tiny_batch(label=[1, 1, 0, 0], absent={("audio", clip) for clip in range(4)}, seed=1),
    ]


@pytest.fixture
def experts(tiny_backbone: Callable[..., Backbone]) -> Experts:
    return Experts({name: Classifier(tiny_backbone((name,)), ["a", "b"]) for name in ("rgb", "audio")})


@pytest.fixture
def stored(batches: list[Batch], experts: Experts, tiny_clip: ClipSpec) -> StoredClips:
    ((clips,),) = store_clips([experts], tiny_clip, Batches(*batches))  # pyright: ignore[reportArgumentType]
    return clips


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["softmax", "cross", "sigmoid"])
def test_a_backbone_over_stored_features_equals_one_over_media(
    fusion: str, batches: list[Batch], experts: Experts, tiny_clip: ClipSpec, stored: StoredClips
) -> None:
    arguments = {"quality": 2} if fusion == "sigmoid" else {}
    names, encoders = ("rgb", "audio"), {name: EncoderSpec("stored/8") for name in ("rgb", "audio")}
    spec = BackboneSpec(width=8, fusion=fusion, fusion_arguments=arguments, encoders=encoders)
    over_features = Backbone(names, spec)
    media = {name: experts.whole[name].backbone.spec.encoders["audio"] for name in names}
    over_media = Backbone(names, replace(spec, encoders=media))
    over_media.load_state_dict(over_features.state_dict(), strict=False)
    for name in names:
        over_media.encoders[name].load_state_dict(experts.whole[name].backbone.encoders[name].state_dict())
    batch = batches[0]
    expected = over_media.eval()(Preparation(tiny_clip)(batch), batch.present, batch.start)
    rows = stored.rows(torch.arange(4))
    found = over_features.eval()(rows.streams, rows.present, rows.start, rows.quality)
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-4, atol=1e-5)


def test_absent_streams_and_clips_keep_their_rows(stored: StoredClips) -> None:
    assert stored.present["audio"].any(dim=1).tolist() == [True, False, True, False] + [False] * 4
    assert (stored.streams["audio"][~stored.present["audio"]] == 0).all()
    assert stored.label.tolist() == [0, 1, 1, 0, 1, 1, 0, 0]
    assert len(stored.keys) == 8
    assert list(stored.only("audio").streams) == ["audio"]
    assert torch.equal(stored.only("audio").quality[:, :, 0], stored.quality[:, :, 1])
    assert not stored.without("rgb").present["rgb"].any()
    assert stored.present["rgb"].all()


def test_noise_is_equal_for_all_models_and_grows_with_its_level(
    batches: list[Batch], experts: Experts, tiny_clip: ClipSpec
) -> None:
    levels = [0.0, 0.5, 1.0]
    first, second = store_clips([experts, experts], tiny_clip, Batches(*batches), levels)  # pyright: ignore
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine.streams["rgb"], theirs.streams["rgb"])
    noise = [clips.quality[:, :, 0, 0].mean() for clips in first]
    assert noise[0] < noise[1] < noise[2]
    mixed = first[0].with_stream_of(first[2], "rgb")
    assert torch.equal(mixed.streams["audio"], first[0].streams["audio"])
    assert torch.equal(mixed.streams["rgb"], first[2].streams["rgb"])
    assert torch.equal(mixed.quality[:, :, 0], first[2].quality[:, :, 0])
    assert mixed.scores is not None
    assert torch.equal(mixed.scores[:, :, 0], first[2].scores[:, :, 0])  # pyright: ignore
    assert torch.equal(mixed.scores[:, :, 1], first[0].scores[:, :, 1])  # pyright: ignore


def test_scores_of_training_clips_come_from_experts_that_have_not_seen_them(
    batches: list[Batch], tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    """Planted: the expert without fold k always scores 10 (k + 1) for the first class, the whole expert 1."""

    def constant(value: float) -> dict[str, Classifier]:
        made = {}
        for name in ("rgb", "audio"):
            made[name] = Classifier(tiny_backbone((name,)), ["a", "b"])
            torch.nn.init.zeros_(made[name].head[-1].weight)  # pyright: ignore
            made[name].head[-1].bias.data = torch.tensor([value, 0.0])  # pyright: ignore
        return made

    batches[0].key[:] = ["w", "x", "y", "z"]
    experts = Experts(constant(1.0), [constant(10.0), constant(20.0)], {"w": 0, "x": 1, "y": 0})
    ((clips,),) = store_clips([experts], tiny_clip, Batches(batches[0]))  # pyright: ignore[reportArgumentType]
    assert clips.scores is not None
    assert clips.scores[:, 0, 0, 0].tolist() == [10.0, 20.0, 10.0, 1.0]
    # Sound is absent in the clips 1 and 3.
    assert clips.scores[:, 0, 1, 0].tolist() == [10.0, 0.0, 10.0, 0.0]
    evidence = clips.evidence({key: f"group {key}" for key in clips.keys})
    assert evidence.groups[:2] == ["group w", "group x"]
    assert torch.equal(evidence.present[:, 0, 1], batches[0].present["audio"][:, 0])


def test_the_stream_shows_every_clip_once_an_epoch_and_resumes(stored: StoredClips) -> None:
    stream = StoredStream(stored, 3, seed=4)
    batches = [next(iter_) for iter_ in [stream.train()] for _ in range(4)]
    seen = [key for batch in batches[:2] for key in batch.key]
    assert len(set(seen)) == 6
    resumed = next(stream.train(3))
    assert resumed.key == batches[3].key
    assert torch.equal(resumed.streams["rgb"], batches[3].streams["rgb"])


def test_loaded_clips_equal_the_saved_ones_and_damage_raises(stored: StoredClips, tmp_path: Path) -> None:
    path = tmp_path / "features" / "test.safetensors"
    save_stored(stored, path)
    again = load_stored(path)
    assert again.keys == stored.keys
    assert list(again.streams) == ["rgb", "audio"]
    for name, stream in stored.streams.items():
        assert torch.equal(again.streams[name], stream)
        assert torch.equal(again.present[name], stored.present[name])
    assert torch.equal(again.quality, stored.quality)
    assert torch.equal(again.scores, stored.scores)  # pyright: ignore[reportArgumentType]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="are damaged"):
        load_stored(path)


def test_a_share_of_the_clips_has_one_noisy_modality() -> None:
    """Stream and quality hold the noise level. 0 is clean."""
    names, count = ("rgb", "audio"), 40

    def at(level: float) -> StoredClips:
        streams = {name: torch.full((count, 1, 2, 3), level) for name in names}
        present = {name: torch.ones(count, 1, dtype=torch.bool) for name in names}
        quality = torch.full((count, 1, 2, 1), level)
        label = torch.zeros(count, dtype=torch.long)
        return StoredClips(streams, present, quality, torch.zeros(count, 1), label, [str(n) for n in range(count)])

    stream = StoredStream(at(0.0), 20, seed=3, noisy=[at(1.0), at(2.0)], share=0.5)
    batches = [batch for _, batch in zip(range(200), stream.train(), strict=False)]
    levels = torch.stack([torch.cat([batch.streams[name][:, 0, 0, 0] for batch in batches]) for name in names])
    assert torch.equal(levels, torch.cat([batch.quality[:, 0, :, 0] for batch in batches]).T)  # pyright: ignore
    assert not ((levels > 0).sum(dim=0) > 1).any()
    # Each of 4000 clips has one of four noise kinds with probability 1/8 each, within four deviations.
    for row in levels:
        for level in (1.0, 2.0):
            assert abs(float((row == level).float().mean()) - 0.125) < 4 * (0.125 * 0.875 / 4000) ** 0.5
    assert stream.clips.streams["rgb"].eq(0).all()
    again = next(stream.train(start=7))
    assert torch.equal(again.streams["audio"], batches[7].streams["audio"])
