"""Weights that know the corruption, on experts with planted evidence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.reliability import ReliabilityGate
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.tasks.fusion_study.feature_bank import StoredClips
from modalgate.tasks.fusion_study.oracle_weights import WEIGHTS, oracle_probabilities, oracle_score
from modalgate.tasks.fusion_study.study_cell import judge_cell, score_stored
from modalgate.tasks.metrics.classification import top_k_accuracy
from torch import Tensor

NAMES, CLASSES = ("rgb", "audio"), 4
TEMPERATURES = {"rgb": 2.0, "audio": 0.5}


def model(decision: str | None) -> Classifier:
    """Experts whose logits are the stored features."""
    torch.manual_seed(0)
    encoders = {name: EncoderSpec(f"stored/{CLASSES}") for name in NAMES}
    backbone = Backbone(NAMES, BackboneSpec(width=CLASSES, fusion="static", encoders=encoders))
    found = Classifier(backbone, ("a", "b", "c", "d"), unimodal=True, decision=decision)
    with torch.no_grad():
        for name in NAMES:
            backbone.projections[name] = torch.nn.Linear(CLASSES, CLASSES, bias=False)
            torch.nn.init.eye_(backbone.projections[name].weight)  # pyright: ignore
            torch.nn.init.eye_(found.unimodal[name].weight)  # pyright: ignore
            torch.nn.init.zeros_(found.unimodal[name].bias)  # pyright: ignore
        if isinstance(found.decision, ReliabilityGate):
            found.decision.set_temperatures(TEMPERATURES)
            torch.nn.init.normal_(found.decision.last)
    return found


def planted(count: int, views: int = 1, seed: int = 0, strength: float = 1.5) -> StoredClips:
    """Calibrated and independent Gaussian evidence for the true class in both streams."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % CLASSES
    one_hot = torch.nn.functional.one_hot(label, CLASSES)[:, None, None]
    streams = {
        name: strength**2 * one_hot + strength * torch.randn(count, views, 1, CLASSES, generator=generator)
        for name in NAMES
    }
    present = {name: torch.ones(count, views, dtype=torch.bool) for name in NAMES}
    keys = [f"clip-{number}" for number in range(count)]
    return StoredClips(streams, present, torch.zeros(count, views, 2, 3), torch.zeros(count, views), label, keys)


def naive(
    clips: StoredClips, weights: tuple[float, float], temperatures: dict[str, float], nothing: Tensor
) -> Tensor:
    """The weighted product, one clip, view and class after another."""
    rows = []
    for clip in range(len(clips.keys)):
        chances = torch.zeros(CLASSES)
        views = clips.streams["rgb"].shape[1]
        for view in range(views):
            score = torch.ones(CLASSES)
            for weight, name in zip(weights, NAMES, strict=True):
                if clips.present[name][clip, view]:
                    raised = (clips.streams[name][clip, view, 0] / temperatures[name]).exp()
                    score = score * (raised / raised.sum()) ** weight
            if not any(clips.present[name][clip, view] for name in NAMES):
                score = nothing.exp()
            chances = chances + score / score.sum() / views
        rows.append(chances)
    return torch.stack(rows)


@pytest.mark.parametrize("decision", ["product", "opinion", "mean", "reliability"])
def test_it_equals_a_loop_over_weights_for_any_subset(decision: str) -> None:
    clips = planted(24, views=2)
    clips.present["rgb"][:6] = False
    clips.present["audio"][3:9] = False
    clips.present["audio"][12:, 0] = False
    clips.streams["audio"][:] = -clips.streams["audio"] / 4
    classifier = model(decision)
    assert classifier.decision is not None
    temperatures = TEMPERATURES if decision == "reliability" else dict.fromkeys(NAMES, 1.0)
    nothing = classifier.decision.nothing.detach()
    tried = [naive(clips, (1.0, weight), temperatures, nothing) for weight in WEIGHTS]
    losses = [-chance[torch.arange(24), clips.label].log().mean() for chance in tried]
    best = int(torch.stack(losses).argmin())
    assert best < len(WEIGHTS) - 1
    torch.testing.assert_close(oracle_probabilities(classifier, clips, "audio"), tried[best])
    torch.testing.assert_close(oracle_probabilities(classifier, clips, None), tried[-1])


def test_on_clean_clips_it_is_the_product() -> None:
    clips = planted(40, views=2)
    clips.present["rgb"][:10] = False
    product, _ = score_stored(model("product"), clips)
    for decision in ("product", "opinion", "mean"):
        found = oracle_probabilities(model(decision), clips, None).double().numpy()
        np.testing.assert_allclose(found, product, atol=1e-6)
    # With temperatures it is the product of the calibrated experts.
    cool = replace(clips, streams={name: stream / TEMPERATURES[name] for name, stream in clips.streams.items()})
    found = oracle_probabilities(model("reliability"), clips, None).double().numpy()
    np.testing.assert_allclose(found, score_stored(model("product"), cool)[0], atol=1e-6)


def test_a_stream_without_evidence_is_ignored() -> None:
    """Under noise the sound is sure of a random class."""
    test, classifier = planted(400), model("product")
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    broken = replace(test, streams=test.streams | {"audio": 4 * test.streams["audio"][order]})
    cell = judge_cell(
        *("product", 0, 0, classifier, test, test, {1.0: broken}, top_k_accuracy), held_out={("noise", 3.0): broken}
    )
    assert cell.oracle_noise["audio"]["1"] == cell.subsets["rgb"] > cell.noise["audio"]["1"] + 0.2
    for name in NAMES:
        assert cell.oracle_noise[name]["0"] == cell.noise[name]["0"]
    # Its pictures are as in `test`: a weight of about 1.
    assert cell.oracle_noise["rgb"]["1"] == pytest.approx(cell.noise["rgb"]["0"], abs=0.02)
    assert cell.oracle_held_out["audio"] == {"noise 3": cell.subsets["rgb"]}


def test_an_overconfident_stream_gets_the_weight_that_undoes_it() -> None:
    clips = planted(3000)
    loud = replace(clips, streams=clips.streams | {"audio": 2.5 * clips.streams["audio"]})
    found = oracle_probabilities(model("product"), loud, "audio")
    # The weight 0.4 of 2.5 times the logits is the product of logits as they were, up to the nearest tenth.
    torch.testing.assert_close(found, naive(loud, (1.0, 0.4), dict.fromkeys(NAMES, 1.0), torch.zeros(CLASSES)))


def test_rows_that_join_features_have_no_oracle() -> None:
    clips, classifier = planted(12), model(None)
    cell = judge_cell("static", 0, 0, classifier, clips, clips, {1.0: clips}, top_k_accuracy)
    assert (cell.oracle_noise, cell.oracle_held_out) == ({}, {})
    with pytest.raises(ValueError, match="weighs class scores"):
        oracle_score(classifier, clips, "rgb", top_k_accuracy)
