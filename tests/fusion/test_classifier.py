"""The classifier on top of the backbone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.reliability import ReliabilityGate
from modalgate.fusion.mechanisms_by_name import build_fusion, fusions_at
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.transforms import Preparation
from torch import nn


def test_logits_are_linear_in_the_embedding_and_in_each_modality(
    tiny_backbone: Callable[..., Backbone], tiny_batch: Callable[..., Batch], tiny_clip: ClipSpec
) -> None:
    classifier = Classifier(tiny_backbone(), ["calm", "fight", "run"], unimodal=True).eval()
    batch = tiny_batch()
    with torch.no_grad():
        scored = classifier(Preparation(tiny_clip)(batch), batch.present, batch.start)
    head = classifier.head[1]
    assert isinstance(head, nn.Linear)
    assert scored.logits.shape == (4, 2, 3)
    torch.testing.assert_close(scored.logits, scored.encoded.embedding @ head.weight.T + head.bias)
    assert set(scored.unimodal) == {"rgb", "audio"}
    for name, logits in scored.unimodal.items():
        own = classifier.unimodal[name]
        assert isinstance(own, nn.Linear)
        torch.testing.assert_close(logits, scored.encoded.features[name] @ own.weight.T + own.bias)


def test_unimodal_heads_are_an_option(tiny_backbone: Callable[..., Backbone]) -> None:
    classifier = Classifier(tiny_backbone(), ["calm", "fight"])
    assert len(classifier.unimodal) == 0
    assert classifier.classes == ("calm", "fight")


def test_dropout_acts_only_in_training(
    tiny_backbone: Callable[..., Backbone], tiny_batch: Callable[..., Batch], tiny_clip: ClipSpec
) -> None:
    classifier = Classifier(tiny_backbone(), ["calm", "fight"], dropout=0.5)
    batch = tiny_batch()
    streams = Preparation(tiny_clip)(batch)

    def twice() -> bool:
        with torch.no_grad():
            first, second = (classifier(streams, batch.present, batch.start).logits for _ in range(2))
        return torch.equal(first, second)

    classifier.train()
    assert not twice()
    classifier.eval()
    assert twice()


def test_view_probabilities_average_after_the_softmax(tiny_backbone: Callable[..., Backbone]) -> None:
    logits, view_probabilities = (
        torch.tensor([[[4.0, 0.0], [0.0, 1.0]]]),
        Classifier(tiny_backbone(), "ab").view_probabilities,
    )
    expected = (torch.softmax(logits[0, 0], 0) + torch.softmax(logits[0, 1], 0)) / 2
    torch.testing.assert_close(view_probabilities(logits), expected[None])
    assert not torch.allclose(view_probabilities(logits)[0], torch.softmax(logits.mean(dim=1)[0], 0))
    assert view_probabilities(logits.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("decision", fusions_at("decision"))
def test_decision_joins_the_heads_of_present_modalities(
    decision: str, tiny_backbone: Callable[..., Backbone], tiny_batch: Callable[..., Batch], tiny_clip: ClipSpec
) -> None:
    classifier = Classifier(tiny_backbone(), ["calm", "fight", "run"], decision=decision).eval()
    batch = tiny_batch()
    batch.present["audio"][0] = False
    with torch.no_grad():
        scored = classifier(Preparation(tiny_clip)(batch), batch.present, batch.start)
    alone = build_fusion(decision, ("rgb",), 3, {})
    expected = alone({"rgb": scored.unimodal["rgb"]}, {"rgb": batch.present["rgb"]})
    torch.testing.assert_close(scored.logits[0], expected.embedding[0])
    assert (scored.encoded.weights[0, :, 1] == 0).all()
    assert classifier.decision is not None
    joined = classifier.decision(scored.unimodal, batch.present)
    torch.testing.assert_close(scored.logits[1:], joined.embedding[1:])
    assert not [name for name, _ in classifier.named_parameters() if name.startswith("head")]


def test_a_decision_replaces_the_auxiliary_loss_of_the_unused_fusion(
    tiny_backbone: Callable[..., Backbone], tiny_batch: Callable[..., Batch], tiny_clip: ClipSpec
) -> None:
    backbone = tiny_backbone(fusion="softmax", fusion_arguments={"balance": 0.1})
    batch, found = tiny_batch(), {}
    for decision in (None, "mean", "reliability"):
        classifier = Classifier(backbone, ["calm", "fight"], decision=decision)
        found[decision] = classifier(Preparation(tiny_clip)(batch), batch.present, batch.start).encoded
    assert found[None].auxiliary is not None
    for decision in ("mean", "reliability"):
        assert found[decision].auxiliary is None
        assert not found[decision].aux_loss.any()


def test_an_unknown_decision_is_named(tiny_backbone: Callable[..., Backbone]) -> None:
    with pytest.raises(RequestError, match="unknown decision 'softmax'"):
        Classifier(tiny_backbone(), ["calm", "fight"], decision="softmax")


def test_multilabel_probabilities_are_independent(tiny_backbone: Callable[..., Backbone]) -> None:
    classifier = Classifier(tiny_backbone(), ["fight", "shouting"], multilabel=True)
    logits = torch.tensor([[[4.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(classifier.probabilities(logits), 1 / (1 + (-logits).exp()))
    torch.testing.assert_close(classifier.view_probabilities(logits), (1 / (1 + (-logits).exp())).mean(dim=1))
    with pytest.raises(RequestError, match="exclude each other"):
        Classifier(tiny_backbone(), ["fight", "shouting"], decision="mean", multilabel=True)


def test_a_decision_gets_its_arguments_and_a_bundle_refuses_them(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    arguments = {"quality": 0, "members": 2}
    classifier = Classifier(tiny_backbone(), ["calm", "fight"], decision="reliability", decision_arguments=arguments)
    assert isinstance(classifier.decision, ReliabilityGate)
    assert (classifier.decision.quality, classifier.decision.members) == (0, 2)
    with pytest.raises(RequestError, match="stores no arguments of decision 'reliability'"):
        save_bundle(Bundle(classifier, tiny_clip, 2), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
