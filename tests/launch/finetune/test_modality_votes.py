"""The weights of modalities' votes: set from training clips alone, kept in the bundle, equal without evidence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.decision import WeightedMeanDecision
from modalgate.launch.cli import main
from modalgate.launch.config.load import load_config
from modalgate.launch.finetune.modality_votes import weigh_modalities
from modalgate.launch.finetune.recipe import Recipe, set_up
from modalgate.launch.schema import FinetuneConfig
from modalgate.shards.index.selection import fraction_of
from modalgate.shards.stream import ClipStream
from modalgate.tasks.features.extract import extract_features
from torch import Tensor


def recipe(corpus: Path, few: list[str], out: Path, *more: str) -> Recipe:
    settings = [f"data.shards={corpus / 'shards'}", f"out={out}", "decision=weighted_mean", *few, *more]
    config = load_config("finetune", "demo-violence", settings)
    assert isinstance(config, FinetuneConfig)
    return set_up(config, ())


def votes(classifier: Classifier) -> Tensor:
    assert isinstance(classifier.decision, WeightedMeanDecision)
    return classifier.decision.votes.clone()


def weighed(given: Recipe, numbers: np.ndarray) -> tuple[Classifier, Tensor]:
    classifier = given.classifier()
    weigh_modalities(given, classifier, numbers, "split")
    return classifier, votes(classifier)


def test_test_labels_do_not_affect_the_votes(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path, f"encoder={corpus / 'runs' / 'demo-pretrain'}")
    train = np.arange(len(given.labels)) % 3 > 0
    _, first = weighed(given, np.flatnonzero(train))
    other = replace(given, labels=np.where(train, given.labels, 1 - given.labels))
    assert weighed(other, np.flatnonzero(train))[1].tolist() == first.tolist()


@pytest.mark.slow
def test_labels_outside_the_fraction_do_not_affect_the_votes(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path, f"encoder={corpus / 'runs' / 'demo-pretrain'}", "data.fraction=0.5")
    used = {sample.key for sample in fraction_of(given.index, 0.5).samples}
    inside = np.array([sample.key in used for sample in given.index.samples])
    everything = np.arange(len(given.labels))
    _, first = weighed(given, everything)
    other = replace(given, labels=np.where(inside, given.labels, 1 - given.labels))
    assert weighed(other, everything)[1].tolist() == first.tolist()


def test_informative_modality_outvotes_an_uninformative_one(
    corpus: Path,
    few: list[str],
    tmp_path: Path,
    planted_backbone: Callable[..., Backbone],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Planted: the feature of a picture is its brightness, which is the label; the features of sound are constant."""
    given = recipe(corpus, few, tmp_path, f"encoder={corpus / 'runs' / 'demo-pretrain'}")
    assert given.start is not None
    backbone = planted_backbone(given.modalities)
    torch.nn.init.zeros_(backbone.encoders["audio"].gain)  # pyright: ignore
    given = replace(given, start=replace(given.start, model=backbone))
    stream = ClipStream(given.index, given.request, 8, **given.told)
    [features] = extract_features([backbone], given.spec, stream)
    levels = features.values["rgb"][:, 0]
    given = replace(given, labels=(levels > np.median(levels)).astype(np.int64))
    classifier, found = weighed(given, np.arange(len(given.labels)))
    by_name = dict(zip(classifier.backbone.modalities, found.tolist(), strict=True))
    assert by_name["rgb"] > 0.9
    assert by_name["audio"] == 0.0
    assert "audio 0.500" in capsys.readouterr().out


def test_random_weights_give_equal_votes(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path, f"encoder={corpus / 'runs' / 'demo-pretrain'}")
    backbone = given.start
    assert backbone is not None
    scratch = replace(given, start=None, config=replace(given.config, model=backbone.backbone.spec))
    assert weighed(scratch, np.arange(8))[1].tolist() == [1.0] * len(scratch.modalities)


@pytest.mark.slow
def test_bundle_keeps_the_votes(
    corpus: Path, few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(evidence: dict[str, float]) -> dict[str, float]:
        return {name: (number + 1) / 8 for number, name in enumerate(evidence)}

    monkeypatch.setattr("modalgate.launch.finetune.modality_votes.votes_of", planted)
    encoder = f"encoder={corpus / 'runs' / 'demo-pretrain'}"
    settings = [f"data.shards={corpus / 'shards'}", f"out={tmp_path}", "name=run", "decision=weighted_mean", encoder]
    assert main(["finetune", "demo-violence", *settings, *few]) == 0
    folder = next(iter(sorted((tmp_path / "run").rglob("encoder"))))
    model = load_bundle(folder).model
    assert isinstance(model, Classifier)
    assert votes(model).tolist() == [(number + 1) / 8 for number in range(len(model.backbone.modalities))]
