"""The last phase of fine-tuning with a gate, which trains experts and gate together."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.fusion.bundle.bundle import load_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.cli import main
from modalgate.launch.config.load import load_config
from modalgate.launch.finetune.joint_training import DISTILLATION, train_jointly
from modalgate.launch.finetune.recipe import Recipe, set_up
from modalgate.launch.schema import FinetuneConfig

GATED = ["decision=reliability", "cross_fit=2", "data.modalities=[rgb,audio]", "data.segments=1"]


def recipe(corpus: Path, few: list[str], out: Path, *more: str) -> Recipe:
    settings = [f"data.shards={corpus / 'shards'}", f"out={out}", "wandb=disabled", *few, *GATED, *more]
    config = load_config("finetune", "demo-violence", settings)
    assert isinstance(config, FinetuneConfig)
    return set_up(config, ())


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_experts_and_gate_move_and_the_experts_stay_near(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path, "joint=0.5", "train.steps=8", "train.log_every=1")
    torch.manual_seed(0)
    classifier = given.classifier()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    train_jointly(given, classifier, np.arange(len(given.labels)), tmp_path / "run")
    moved = {
        name.split(".")[0] for name, value in classifier.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == {"backbone", "unimodal", "decision"}
    lines = logged(tmp_path / "run" / "joint")
    assert lines[-1]["step"] == 4, "half of the steps"
    assert max(line["learning_rate"] for line in lines) <= given.config.train.learning_rate / 10 * 1.0001
    for line in lines:
        parts = line["label/loss"] + line["unimodal/loss"] + DISTILLATION * line["distillation/loss"]
        assert line["loss"] == pytest.approx(parts, rel=1e-4)


def test_without_a_share_nothing_trains(corpus: Path, few: list[str], tmp_path: Path) -> None:
    given = recipe(corpus, few, tmp_path)
    classifier = given.classifier()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    train_jointly(given, classifier, np.arange(len(given.labels)), tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["decision=mean", "joint=0.5"], "set decision=reliability"),
        ([*GATED[:2], "joint=0.5", "encoder_learning_rate=0"], "set encoder_learning_rate above 0"),
    ],
)
def test_settings_that_leave_nothing_to_train_are_refused(
    corpus: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = [f"data.shards={corpus / 'shards'}", f"out={tmp_path}"]
    assert main(["finetune", "demo-violence", *place, *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_saved_model_is_the_one_after_the_phase_and_resumes(corpus: Path, few: list[str], tmp_path: Path) -> None:
    place = [f"data.shards={corpus / 'shards'}", f"out={tmp_path}", *few, *GATED, "wandb=disabled"]
    states = []
    for name, more in (("plain", []), ("joint", ["joint=0.5"])):
        assert main(["finetune", "demo-violence", *place, f"name={name}", *more]) == 0
        model = load_bundle(tmp_path / name / "encoder").model
        assert isinstance(model, Classifier)
        states.append(model.state_dict())
    plain, joint = states
    assert any(not torch.equal(value, joint[name]) for name, value in plain.items() if name.startswith("backbone"))
    # Resumed after its last step, the run gives the same model.
    assert main(["finetune", "demo-violence", *place, "name=joint", "joint=0.5", "--resume", "auto"]) == 0
    again = load_bundle(tmp_path / "joint" / "encoder").model.state_dict()
    for name, value in joint.items():
        torch.testing.assert_close(again[name], value)
