"""The graph model equals the trained model: every subset, every fusion, any number of rows."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle
from modalgate.fusion.bundle.graph import GraphModel, LogMel, every_subset, random_windows, stored_form
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms_by_name import fusions_at
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.transforms import Preparation
from torch import Tensor

NAMES = ("rgb", "flow", "depth", "audio", "inertial")


def eager(bundle: Bundle, present: Tensor, streams: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """As in training: only present rows are encoded."""
    batch = Batch(
        {name: stream.unsqueeze(1) for name, stream in streams.items()},
        {name: present[:, number : number + 1] for number, name in enumerate(streams)},
        [""] * len(present),
        torch.zeros(len(present), 1),
    )
    with torch.no_grad():
        found = bundle.model(Preparation(bundle.spec)(batch), batch.present, batch.start)
    if isinstance(bundle.model, Classifier):
        probabilities = found.logits[:, 0].softmax(-1)
        return probabilities, found.encoded.embedding[:, 0], found.encoded.weights[:, 0]
    return found.embedding[:, 0], found.weights[:, 0]


def spread(model: torch.nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def test_every_subset_of_five_modalities(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> None:
    backbone = tiny_backbone(NAMES).eval()
    spread(backbone)
    bundle = Bundle(backbone, tiny_clip, 2)
    present = every_subset(NAMES)
    streams = random_windows(tiny_clip, NAMES, len(present))
    with torch.no_grad():
        found = GraphModel(bundle)(present, *streams.values())
    for mine, theirs in zip(found, eager(bundle, present, streams), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[1] > 0, present)


@pytest.mark.parametrize("fusion", fusions_at("feature", "token"))
@pytest.mark.parametrize("decision", [None, "evidential"])
def test_every_fusion_under_a_classifier(
    fusion: str, decision: str | None, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    names = ("rgb", "audio")
    arguments = {"quality": 2} if fusion in ("softmax", "sigmoid") else {}
    backbone = tiny_backbone(names, fusion=fusion, fusion_arguments=arguments)
    classifier = Classifier(backbone, ["calm", "fight"], unimodal=True, decision=decision).eval()
    spread(classifier)
    bundle = Bundle(classifier, tiny_clip, 2, "violence", "fight")
    present = every_subset(names)
    streams = random_windows(tiny_clip, names, len(present))
    model = GraphModel(bundle)
    with torch.no_grad():
        found = model(present, *streams.values())
    assert model.outputs == ("probabilities", "embedding", "weights")
    for mine, theirs in zip(found, eager(bundle, present, streams), strict=True):
        # The signed root of `bilinear` widens the rounding of what is near zero.
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_absent_streams_are_ignored_even_if_nan(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> None:
    bundle = Bundle(tiny_backbone(("rgb", "audio")).eval(), tiny_clip, 2)
    streams = random_windows(tiny_clip, ("rgb", "audio"), 2)
    present = torch.tensor([[True, False], [True, True]])
    broken = streams["audio"].clone()
    broken[0] = float("nan")
    with torch.no_grad():
        whole = GraphModel(bundle)(present, *streams.values())
        found = GraphModel(bundle)(present, streams["rgb"], broken)
    for mine, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_graph_spectrogram_equals_training(rate: int, tiny_clip: ClipSpec) -> None:
    spec = ClipSpec(**(vars(tiny_clip) | {"sample_rate": rate}))
    preparation = Preparation(spec)
    times = torch.arange(rate // 2) / rate
    sound = torch.stack([torch.sin(2 * torch.pi * 440 * times) * 0.3, torch.randn(len(times)) * 0.1, times * 0])
    expected = preparation.log_mel(sound.unsqueeze(1))[:, 0]
    torch.testing.assert_close(LogMel(preparation, spec)(sound), expected, rtol=1e-4, atol=1e-4)


def test_the_encoder_of_a_classifier_alone(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> None:
    backbone = tiny_backbone()
    bundle = Bundle(Classifier(backbone, ["a", "b"]).eval(), tiny_clip, 1)
    model = GraphModel(bundle, encoder_only=True)
    assert model.outputs == ("embedding", "weights")
    present = torch.ones(3, 2, dtype=torch.bool)
    streams = random_windows(tiny_clip, backbone.modalities, 3)
    with torch.no_grad():
        found = model(present, *streams.values())
    expected = eager(Bundle(backbone.eval(), tiny_clip, 1), present, streams)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_stored_form_of_every_kind(tiny_clip: ClipSpec) -> None:
    assert stored_form(tiny_clip, "rgb") == ((2, 3, 32, 32), torch.uint8)
    assert stored_form(tiny_clip, "depth") == ((2, 1, 32, 32), torch.uint16)
    assert stored_form(tiny_clip, "audio") == ((3200,), torch.float32)
    assert stored_form(tiny_clip, "inertial") == ((20, 6), torch.float32)


def test_every_subset_occurs_once() -> None:
    rows = every_subset(("a", "b", "c"))
    assert rows.shape == (8, 3)
    assert len({tuple(row) for row in rows.tolist()}) == 8
    assert not rows[0].any()
