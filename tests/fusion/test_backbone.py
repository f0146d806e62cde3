"""The backbone: which rows are encoded, the effect of absence, and modality dropout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from modalgate.fusion.backbone import Backbone, alone, encoder_spec, fresh_copy, select_modalities
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.gates import SigmoidGate, SoftmaxGate
from modalgate.fusion.mechanisms.quality import measure_quality
from modalgate.fusion.mechanisms_by_name import fusions_at
from modalgate.fusion.spec import PRESETS, BackboneSpec, EncoderSpec
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.modality import MODALITIES
from modalgate.shards.transforms import Preparation
from safetensors.torch import save_file
from torch import Tensor, nn

Build, MakeBatch = Callable[..., Backbone], Callable[..., Batch]
Prepared = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


@pytest.fixture
def prepared(tiny_batch: MakeBatch, tiny_clip: ClipSpec) -> Callable[..., Prepared]:
    """A batch's prepared streams, presence and starts."""

    def build(**arguments: object) -> Prepared:
        batch = tiny_batch(**arguments)
        return Preparation(tiny_clip)(batch), batch.present, batch.start

    return build


@torch.no_grad()
def test_every_modality_is_encoded(tiny_backbone: Build, prepared: Callable[..., Prepared]) -> None:
    backbone = tiny_backbone(tuple(MODALITIES)).eval()
    streams, present, start = prepared(modalities=tuple(MODALITIES))
    encoded = backbone(streams, present, start)
    assert encoded.modalities == tuple(MODALITIES)
    assert encoded.embedding.shape == (4, 2, 8)
    assert encoded.weights.shape == (4, 2, len(MODALITIES))
    assert torch.equal(encoded.start, start)
    for name in MODALITIES:
        assert encoded.features[name].shape == (4, 2, 8)
        rows = backbone.projections[name](backbone.encoders[name](streams[name].flatten(0, 1)))
        torch.testing.assert_close(encoded.features[name].flatten(0, 1), rows, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_only_present_rows_are_encoded(tiny_backbone: Build, prepared: Callable[..., Prepared]) -> None:
    backbone = tiny_backbone().eval()
    streams, present, start = prepared(absent={("audio", 1), ("audio", 3), ("rgb", 3)})
    seen: dict[str, list[int]] = {name: [] for name in backbone.modalities}
    for name, encoder in backbone.encoders.items():
        encoder.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(len(inputs[0])))
    encoded = backbone(streams, present, start)
    assert seen == {"rgb": [6], "audio": [4]}
    assert (encoded.features["audio"][[1, 3]] == 0).all()
    assert (encoded.features["audio"][[0, 2]] != 0).any(dim=-1).all()
    assert torch.equal(encoded.embedding[3], backbone.fusion.nothing.expand(2, 8))
    assert (encoded.weights[3] == 0).all()


@pytest.mark.parametrize("fusion", fusions_at("feature", "token"))
@pytest.mark.parametrize("content", [0.0, 1e6, float("nan")])
def test_content_of_absent_rows_is_ignored(
    fusion: str, content: float, tiny_backbone: Build, prepared: Callable[..., Prepared]
) -> None:
    streams, present, start = prepared(absent={("audio", 1), ("rgb", 2)})
    results = []
    for fill in (None, content):
        backbone = tiny_backbone(fusion=fusion).train()
        if fill is not None:
            streams = {
                name: torch.where(present[name].view(4, 2, *[1] * (stream.ndim - 2)), stream, fill)
                for name, stream in streams.items()
            }
        encoded = backbone(streams, present, start)
        (encoded.embedding.square().sum() + encoded.aux_loss).backward()
        results.append((encoded, [parameter.grad for parameter in backbone.parameters()]))
    (clean, gradients), (filled, others) = results
    assert torch.equal(clean.embedding, filled.embedding)
    assert torch.equal(clean.weights, filled.weights)
    for mine, other in zip(gradients, others, strict=True):
        assert mine is not None
        assert other is not None
        assert torch.equal(mine, other)
        assert torch.isfinite(mine).all()


@torch.no_grad()
def test_permuting_segments_permutes_features(tiny_backbone: Build, prepared: Callable[..., Prepared]) -> None:
    backbone = tiny_backbone().eval()
    streams, present, start = prepared(segments=3, absent={("audio", 1)})
    order = [2, 0, 1]
    before = backbone(streams, present, start)
    after = backbone(
        {n: s[:, order] for n, s in streams.items()}, {n: p[:, order] for n, p in present.items()}, start[:, order]
    )
    for name in backbone.modalities:
        torch.testing.assert_close(after.features[name], before.features[name][:, order])
    torch.testing.assert_close(after.embedding, before.embedding[:, order])
    torch.testing.assert_close(after.weights, before.weights[:, order])


@torch.no_grad()
def test_segments_may_have_different_modalities(tiny_backbone: Build, prepared: Callable[..., Prepared]) -> None:
    backbone = tiny_backbone().eval()
    streams, present, start = prepared()
    whole = backbone(streams, present, start)
    present["audio"][0, 1] = False
    encoded = backbone(streams, present, start)
    torch.testing.assert_close(encoded.embedding[0, 0], whole.embedding[0, 0])
    torch.testing.assert_close(encoded.embedding[0, 1], encoded.features["rgb"][0, 1])


@pytest.mark.parametrize("fusion", fusions_at("feature", "token"))
def test_a_batch_without_audio_reaches_every_parameter(
    fusion: str, tiny_backbone: Build, prepared: Callable[..., Prepared]
) -> None:
    backbone = tiny_backbone(fusion=fusion).train()
    streams, present, start = prepared(absent={("audio", clip) for clip in range(4)})
    assert "audio" not in streams
    encoded = backbone(streams, present, start)
    (encoded.embedding.square().sum() + encoded.aux_loss).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if "audio" in name:
            assert (parameter.grad == 0).all(), name
    assert any(bool((p.grad != 0).any()) for n, p in backbone.named_parameters() if "rgb" in n and p.grad is not None)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_modality_dropout_hides_at_its_rate_and_never_all(share: float, tiny_backbone: Build) -> None:
    modalities = ("rgb", "flow", "audio")
    backbone = tiny_backbone(modalities, modality_dropout=share)
    torch.manual_seed(1)
    rows = 20000
    kept = backbone._drop({name: torch.ones(rows, 2, dtype=torch.bool) for name in modalities})
    mask = torch.stack(list(kept.values()), dim=-1)
    assert mask.any(dim=-1).all()
    assert torch.equal(mask[:, 0], mask[:, 1]), "one draw for all segments of a clip"
    patterns = mask[:, 0].to(torch.int64) @ torch.tensor([1, 2, 4])
    counts = torch.bincount(patterns, minlength=8) / rows
    # Of the eight patterns, the one that hides all becomes the one that hides nothing.
    expected = torch.tensor([0.0, *[share / 8] * 6, 1 - share * 6 / 8])
    assert (counts - expected).abs().max() < 5 * (0.25 / rows) ** 0.5


def test_modality_dropout_keeps_the_last_modality_of_a_row(tiny_backbone: Build) -> None:
    backbone = tiny_backbone(modality_dropout=1.0)
    torch.manual_seed(1)
    rgb = torch.ones(500, 1, dtype=torch.bool)
    audio = torch.arange(500)[:, None] % 2 == 0
    kept = backbone._drop({"rgb": rgb, "audio": audio})
    assert not (kept["audio"] & ~audio).any()
    assert (kept["rgb"] | kept["audio"]).all()
    assert kept["rgb"][~audio].all()


def test_dropout_reaches_the_fusion_but_not_the_features(
    tiny_backbone: Build, prepared: Callable[..., Prepared]
) -> None:
    backbone = tiny_backbone(modality_dropout=1.0).train()
    streams, present, start = prepared(clips=16)
    torch.manual_seed(0)
    encoded = backbone(streams, present, start)
    hidden = encoded.weights == 0
    assert hidden.any()
    assert not hidden.all(dim=-1).any()
    for name in backbone.modalities:
        assert torch.equal(encoded.present[name], present[name])
        assert (encoded.features[name] != 0).any(dim=-1).all(), "pretext tasks still see what is there"


@torch.no_grad()
def test_evaluation_is_deterministic_and_hides_nothing(
    tiny_backbone: Build, prepared: Callable[..., Prepared]
) -> None:
    backbone = tiny_backbone(modality_dropout=1.0).eval()
    inputs = prepared(clips=8)
    state = torch.get_rng_state()
    first, second = backbone(*inputs), backbone(*inputs)
    assert torch.equal(first.embedding, second.embedding)
    assert torch.equal(torch.get_rng_state(), state), "evaluation draws nothing"
    assert (first.weights > 0).all()


def test_most_specific_encoder_wins() -> None:
    video, flow = EncoderSpec("timm/convnext_atto"), EncoderSpec("torchvision/r3d_18")
    spec = BackboneSpec(encoders={"video": video, "flow": flow})
    assert encoder_spec(spec, "flow").model == flow.model
    assert encoder_spec(spec, "rgb").model == video.model
    assert encoder_spec(spec, "inertial").model == PRESETS["tiny"].encoders["signal"].model


def test_an_unknown_key_of_encoders_gets_the_nearest_modality_or_kind() -> None:
    for given, near in (("vidoe", "video"), ("flwo", "flow"), ("signals", "signal")):
        with pytest.raises(RequestError, match=f"'{given}': did you mean '{near}'"):
            Backbone(("rgb",), BackboneSpec(encoders={given: EncoderSpec()}))


def test_select_modalities() -> None:
    assert select_modalities(("rgb", "audio"), []) == ("rgb", "audio")
    assert select_modalities(("rgb", "flow", "audio"), ["audio", "rgb"]) == ("audio", "rgb")
    with pytest.raises(RequestError, match=r"modality in these shards 'flow'.*audio, rgb"):
        select_modalities(("rgb", "audio"), ["flow"])
    with pytest.raises(RequestError, match="unknown modality 'rbg': did you mean 'rgb'"):
        select_modalities(("rgb", "audio"), ["rbg"])


def test_single_modality_keeps_its_features_with_separate_weights(
    tiny_backbone: Build, prepared: Callable[..., Prepared]
) -> None:
    backbone = tiny_backbone(fusion="softmax", fusion_arguments={"balance": 0.1}, modality_dropout=0.5).eval()
    single = alone(backbone, "audio").eval()
    streams, present, start = prepared()
    theirs, ours = backbone(streams, present, start), single(streams, present, start)
    assert single.modalities == ("audio",)
    torch.testing.assert_close(ours.features["audio"], theirs.features["audio"])
    first = next(single.parameters())
    assert all(first.data_ptr() != other.data_ptr() for other in backbone.parameters())


def test_fresh_copy_has_the_same_shape_and_new_weights(
    tiny_backbone: Build, tiny_encoder: Callable[..., EncoderSpec], tmp_path: Path
) -> None:
    path = tmp_path / "start.safetensors"
    state = tiny_backbone().encoders["rgb"].network.state_dict()  # pyright: ignore
    save_file({key: torch.full_like(value, 7) for key, value in state.items()}, path)
    encoders = {"video": replace(tiny_encoder(), weights=str(path)), "audio": tiny_encoder()}
    backbone = tiny_backbone(encoders=encoders)
    torch.nn.init.constant_(backbone.encoders["audio"].network.stem[0].weight, 7)  # pyright: ignore
    copy = fresh_copy(backbone)
    mine, fresh = backbone.state_dict(), copy.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in fresh.items()}
    for name in ("rgb", "audio"):
        key = f"encoders.{name}.network.stem.0.weight"
        assert (mine[key] == 7).all()
        assert (fresh[key].abs() < 1).all(), "an untrained control reads no weights file"


@torch.no_grad()
def test_gate_with_quality_gets_the_measures(tiny_backbone: Build, prepared: Callable[..., Prepared]) -> None:
    backbone = tiny_backbone(fusion="sigmoid", fusion_arguments={"quality": 2}).eval()
    streams, present, start = prepared(absent={("audio", 1)})
    assert isinstance(backbone.fusion, SigmoidGate)
    assert backbone.fusion.score is not None
    backbone.fusion.weight.zero_()
    first, _, last = backbone.fusion.score.network
    # relu(-x) - relu(x) is -x: of the noise alone.
    for layer, values in ((first, [[-1.0, 0.0], [1.0, 0.0]]), (last, [[1.0, -1.0]])):
        layer.weight.zero_()
        rows = torch.tensor(values)
        layer.weight[: len(rows), : rows.shape[1]] = rows
    first.bias.zero_()
    told = backbone(streams, present, start).weights
    noise = measure_quality(backbone.modalities, streams, present)[..., 0]
    here = torch.stack([present[name] for name in backbone.modalities], dim=-1)
    torch.testing.assert_close(told, torch.sigmoid(-noise) * here)


@torch.no_grad()
def test_tokens_reach_the_fusion_in_temporal_order(tiny_backbone: Build, prepared: Callable[..., Prepared]) -> None:
    backbone = tiny_backbone(fusion="cross").eval()
    streams, present, start = prepared(absent={("audio", 1)})
    seen: dict[str, tuple[int, ...]] = {}
    backbone.fusion.register_forward_pre_hook(
        lambda _, inputs: seen.update({name: tuple(tokens.shape) for name, tokens in inputs[0].items()})
    )
    encoded = backbone(streams, present, start)
    # The pooled feature, then two frames; the spectrogram's width is that of its last feature map.
    assert seen["rgb"] == (4, 2, 3, 8)
    assert seen["audio"][:2] == (4, 2)
    assert seen["audio"][2] >= 2
    assert encoded.features["rgb"].shape == (4, 2, 8)


def test_modality_missing_from_present_is_absent(
    tiny_backbone: Callable[..., Backbone], tiny_batch: Callable[..., Batch], tiny_clip: ClipSpec
) -> None:
    """It is absent in all rows: the same result as with a false mask."""
    backbone = tiny_backbone(("rgb", "flow", "audio")).eval()
    batch = tiny_batch(modalities=("rgb", "flow"))
    streams = Preparation(tiny_clip)(batch)
    off = torch.zeros_like(batch.start, dtype=torch.bool)
    found = backbone(streams, batch.present, batch.start)
    masked = backbone(streams, batch.present | {"audio": off}, batch.start)
    assert torch.equal(found.embedding, masked.embedding)
    assert torch.equal(found.weights, masked.weights)
    assert not found.present["audio"].any()
    assert not found.weights[..., 2].any()


class Lightest(nn.Module):
    """The mean over pixels and time, and no tokens."""

    features = 3

    def forward(self, video: Tensor) -> Tensor:
        return video.mean(dim=(1, 3, 4))


def test_parts_can_be_modules_or_names(tiny_backbone: Callable[..., Backbone], prepared: Callable[..., Any]) -> None:
    spec = tiny_backbone().spec
    gate, net = SigmoidGate(("rgb", "audio"), 8), Lightest()
    backbone = Backbone(["rgb", "audio"], spec, fusion=gate, encoders={"rgb": net}).eval()
    assert backbone.fusion is gate
    assert backbone.encoders["rgb"] is net
    assert backbone.spec.fusion == "sigmoid"
    assert backbone.projections["rgb"][0].in_features == 3  # pyright: ignore
    by_name = Backbone(("rgb", "audio"), replace(spec, fusion="sigmoid"))
    named = Backbone(("rgb", "audio"), spec, fusion="sigmoid", encoders={"audio": spec.encoders["audio"]})
    assert [p.shape for p in named.parameters()] == [p.shape for p in by_name.parameters()]
    encoded = backbone(*prepared())
    assert encoded.features["rgb"].shape == (*encoded.start.shape, 8)


def test_arguments_of_a_given_gate_reach_the_spec(tiny_backbone: Callable[..., Backbone]) -> None:
    for arguments in ({"temperature": 2.0}, {"dropout": 0.5}, {"hidden": 4}, {"quality": 2}):
        gate = SoftmaxGate(("rgb", "audio"), 8, **arguments)
        spec = tiny_backbone().spec
        with pytest.raises(RequestError, match="SoftmaxGate was built with arguments that a bundle would not hold"):
            Backbone(("rgb", "audio"), spec, fusion=gate)
        gate.arguments = arguments  # pyright: ignore[reportAttributeAccessIssue]
        assert Backbone(("rgb", "audio"), spec, fusion=gate).spec.fusion_arguments == arguments


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"fusion": SigmoidGate(("audio", "rgb"), 8)},
            "modalities audio, rgb, but the backbone has rgb, audio",
        ),
        ({"fusion": SigmoidGate(("rgb", "audio"), 5)}, "width 5, but the backbone's width is 8"),
        ({"encoders": {"rgb": nn.Identity()}}, "encoder Identity of 'rgb' has no attribute `features`"),
        ({"encoders": {"rbg": Lightest()}}, "unknown modality of an encoder 'rbg': did you mean 'rgb'"),
        (
            {"encoders": {"rgb": Lightest()}, "fusion": "bottleneck"},
            "Lightest of 'rgb' returns none: give it",
        ),
    ],
)
def test_unfitting_part_is_rejected(
    tiny_backbone: Callable[..., Backbone], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        Backbone(("rgb", "audio"), tiny_backbone().spec, **given)


def test_a_batch_is_prepared_and_encoded(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tiny_batch: Callable[..., Batch]
) -> None:
    backbone, batch = tiny_backbone().eval(), tiny_batch(absent={("audio", 1)})
    with pytest.raises(RequestError, match="needs a clip spec to prepare a Batch: give Backbone clip=ClipSpec"):
        backbone(batch)
    before = set(backbone.state_dict())
    backbone.prepare_as(tiny_clip)
    assert set(backbone.state_dict()) == before, "preparing needs no weights"
    by_hand = backbone(Preparation(tiny_clip)(batch), batch.present, batch.start)
    found = backbone(batch)
    assert torch.equal(found.embedding, by_hand.embedding)
    assert torch.equal(found.weights, by_hand.weights)
    classifier = Classifier(backbone, ["calm", "fight"]).eval()
    assert torch.equal(classifier(batch).logits, classifier.score(by_hand).logits)
