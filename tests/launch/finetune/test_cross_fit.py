"""Fine-tuning with a cross-fitted gate: what it reads, what it writes, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.reliability import ReliabilityGate
from modalgate.launch.cli import main
from modalgate.launch.config.load import load_config
from modalgate.launch.finetune.cross_fit import cross_fit_of, fit_gate
from modalgate.launch.finetune.recipe import Recipe, set_up, supervised_objective
from modalgate.launch.schema import FinetuneConfig
from modalgate.shards.index.selection import fraction_of
from modalgate.tasks.finetuning.cross_fitting import CrossFitted
from modalgate.tasks.splits.splits import Split

GATED = ["decision=reliability", "cross_fit=2", "data.modalities=[rgb,audio]", "data.segments=1"]


def recipe(corpus: Path, few: list[str], out: Path, *more: str) -> Recipe:
    settings = [f"data.shards={corpus / 'shards'}", f"out={out}", *few, *GATED, *more]
    config = load_config("finetune", "demo-violence", settings)
    assert isinstance(config, FinetuneConfig)
    return set_up(config, ())


@pytest.mark.slow
def test_a_cross_fitted_run_is_saved_and_exported(
    corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = corpus / "runs" / "fitted"
    place = [f"data.shards={corpus / 'shards'}", f"out={corpus / 'runs'}", "name=fitted"]
    assert main(["finetune", "demo-violence", *place, *few, *GATED]) == 0
    assert "(product of experts: " in capsys.readouterr().out
    model = load_bundle(run / "encoder").model
    assert isinstance(model, Classifier)
    assert isinstance(model.decision, ReliabilityGate)
    # Standardised on evidence.
    assert not torch.equal(model.decision.deviation, torch.ones_like(model.decision.deviation))
    assert main(["export", str(run), str(tmp_path / "bundle")]) == 0
    exported = load_bundle(tmp_path / "bundle").model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(exported[name], value), name
    assert main(["export", str(run), str(tmp_path / "model.onnx"), "--format", "onnx"]) == 0


def test_only_training_clips_in_the_fraction_are_divided(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path, "data.fraction=0.5")
    fit = cross_fit_of(given, np.arange(len(given.labels)))
    assert fit is not None
    used = {sample.key for sample in fraction_of(given.index, 0.5).samples}
    assert set(fit.fold_of) == used
    group_of = dict(zip([sample.key for sample in given.index.samples], given.index.column("group"), strict=True))
    by_group: dict[str, set[int]] = {}
    for key, fold in fit.fold_of.items():
        by_group.setdefault(group_of[key], set()).add(fold)
    assert all(len(folds) == 1 for folds in by_group.values())


def test_test_labels_do_not_affect_the_gate(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path)
    train = np.flatnonzero(np.arange(len(given.labels)) % 3 > 0)
    states = []
    for labels in (given.labels, np.where(np.isin(np.arange(len(given.labels)), train), given.labels, 0)):
        other = replace(given, labels=labels)
        torch.manual_seed(0)
        classifier = other.classifier()
        fit = cross_fit_of(other, train)
        fit_gate(other, classifier, fit, Split("", train, train[:0], train[:0]))
        assert classifier.decision is not None
        states.append(classifier.decision.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_experts_train_by_their_own_losses(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path)
    numbers = np.arange(len(given.labels))
    fit = cross_fit_of(given, numbers)
    objective = supervised_objective(given, given.classifier(), numbers, fit=fit)
    assert isinstance(objective, CrossFitted)
    for part in (objective.whole, *objective.parts):
        assert part.weights["label/loss"] == 0  # pyright: ignore
        assert part.head_weights == {"joint": 0.0, "rgb": 0.5, "audio": 0.5}  # pyright: ignore


def test_validation_clips_fit_the_gate_and_the_final_model_takes_it(
    corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = corpus / "runs" / "held"
    place = [f"data.shards={corpus / 'shards'}", f"out={corpus / 'runs'}", "name=held", "--final"]
    held = ["decision=reliability", "hold_out=true", "data.modalities=[rgb,audio]", "data.segments=1"]
    assert main(["finetune", "demo-violence", *place, *few, *held]) == 0
    assert capsys.readouterr().out.count("gate: held-out loss") == 1
    model, final = (load_bundle(folder / "encoder").model for folder in (run, run / "final"))
    assert isinstance(model, Classifier)
    assert isinstance(final, Classifier)
    assert isinstance(model.decision, ReliabilityGate)
    assert not torch.equal(model.decision.deviation, torch.ones_like(model.decision.deviation))
    for name, value in model.decision.state_dict().items():
        assert torch.equal(final.decision.state_dict()[name], value), name  # pyright: ignore


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["decision=reliability"], "set cross_fit=2, or hold_out=true"),
        (["decision=mean", "cross_fit=2"], "set decision=reliability"),
        (["decision=reliability", "cross_fit=1"], "2 or more"),
        (["decision=reliability", "cross_fit=2", "aids.gate_warmup=0.5"], "without aids"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    corpus: Path, few: list[str], capsys: pytest.CaptureFixture[str], settings: list[str], words: str
) -> None:
    place = [f"data.shards={corpus / 'shards'}", f"out={corpus / 'runs'}", "name=refused"]
    assert main(["finetune", "demo-violence", *place, *few, *settings]) == 2
    assert words in capsys.readouterr().err
    assert not (corpus / "runs" / "refused").exists()
