"""The objective of a fine-tuning, from the training clips in use; and its training, resumed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.config.load import load_config
from modalgate.launch.finetune.recipe import Recipe, set_up, supervised_objective, train_classifier
from modalgate.launch.runs.metric_log import read_metrics
from modalgate.launch.schema import FinetuneConfig
from modalgate.shards.index.selection import fraction_of
from modalgate.tasks.finetuning.supervised_objective import balanced_weights, guess


@pytest.fixture
def recipe(corpus: Path, few: list[str], tmp_path: Path) -> Recipe:
    settings = [f"data.shards={corpus / 'shards'}", f"out={tmp_path}", "data.fraction=0.5", "balanced=true", *few]
    config = load_config("finetune", "demo-violence", [*settings, f"encoder={corpus / 'runs' / 'demo-pretrain'}"])
    assert isinstance(config, FinetuneConfig)
    return set_up(config, ())


def test_the_clips_in_use_are_those_of_the_stream(recipe: Recipe) -> None:
    kept = {sample.key for sample in fraction_of(recipe.index, 0.5).samples}
    everything = np.arange(len(recipe.labels))
    used = recipe.used(everything[::-1])
    assert [recipe.index.samples[number].key in kept for number in everything] == np.isin(everything, used).tolist()
    assert used.tolist() == sorted(used.tolist())


def test_labels_outside_the_fraction_do_not_count(recipe: Recipe) -> None:
    """Planted: all clips outside the fraction get one class. Neither weights nor the loss of guessing change."""
    everything = np.arange(len(recipe.labels))
    inside = np.isin(everything, recipe.used(everything))
    assert 0 < inside.sum() < len(inside)
    # Unequal classes, so that the weights differ from one.
    labels = np.where(everything % 3 == 0, 0, 1)
    expected = balanced_weights(labels[inside].tolist(), 2)
    for outside in (0, 1):
        planted = replace(recipe, labels=np.where(inside, labels, outside))
        objective = supervised_objective(planted, planted.classifier(), everything)
        assert objective.class_weights is not None
        torch.testing.assert_close(objective.class_weights, torch.tensor(expected))
        assert objective.guessing == guess(labels[inside], 2, expected)


ENCODER = "{model: timm/convnext_atto, arguments: {depths: [1, 1, 1, 1], dims: [4, 4, 8, 8]}, pooling: mean}"
BALANCED = f"""
kind: finetune
task: action
model: {{width: 8, encoders: {{video: {ENCODER}, audio: {ENCODER}}}}}
data: {{modalities: [rgb, audio], segments: 1, seconds: 0.4, frames: 2, size: 32, batch_size: 4, workers: 0}}
decision: entropy
aids: {{alternation: 0.1, relearning: 3, relearn_every: 0.5}}
hold_out: true
train: {{steps: 4, learning_rate: 0.05, checkpoint_every: 1, keep: 9, log_every: 1, threads: 1, precision: fp32}}
wandb: disabled
"""


def balanced_training(recipe: Recipe, run: Path, resume: bool = False) -> Classifier:
    set_seed(0)
    classifier = recipe.classifier()
    half = len(recipe.labels) // 2
    numbers = np.arange(2 * half)
    train_classifier(recipe, classifier, numbers[:half], run, held_out=numbers[half:], resume=resume)
    return classifier


@pytest.fixture(scope="module")
def balanced(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Classifier]:
    """A training with alternation and relearning, and its run folder.

    The training clips have labels at random, which no cluster can have learned. The held-out clips have one label.
    """
    folder = tmp_path_factory.mktemp("balanced")
    (folder / "balanced.yaml").write_text(BALANCED, encoding="utf-8")
    config = load_config("finetune", str(folder / "balanced.yaml"), [f"data.shards={corpus / 'shards'}"])
    assert isinstance(config, FinetuneConfig)
    recipe = set_up(config, ())
    half = len(recipe.labels) // 2
    drawn = np.random.default_rng(0).permutation(half) % 2
    samples = [
        replace(sample, labels=sample.labels | {recipe.column: recipe.classes[drawn[number] if number < half else 0]})
        for number, sample in enumerate(recipe.index.samples)
    ]
    recipe = replace(recipe, index=replace(recipe.index, samples=tuple(samples)))
    return recipe, folder / "run", balanced_training(recipe, folder / "run")


def test_alternation_and_relearning_take_their_turns(
    balanced: tuple[Recipe, Path, Classifier], tmp_path: Path
) -> None:
    recipe, run, classifier = balanced
    lines = read_metrics(run)
    turns = [name for line in lines for name in ("rgb", "audio") if f"alternation/{name}" in line]
    assert turns == ["rgb", "audio", "rgb", "audio"]
    (diagnosis,) = (line for line in lines if "relearning/rgb" in line)
    assert diagnosis["step"] == 2
    assert diagnosis["relearning/rgb"] > 0
    assert diagnosis["relearning/audio"] > 0
    # The heads are one, and are saved as two.
    save_bundle(Bundle(classifier, recipe.spec, 1, "action", None, {}), tmp_path / "encoder")
    saved = load_bundle(tmp_path / "encoder").model.state_dict()
    assert torch.equal(saved["unimodal.rgb.weight"], saved["unimodal.audio.weight"])
    for name, value in classifier.state_dict().items():
        assert torch.equal(saved[name], value), name


@pytest.mark.parametrize("kept", [1, 2])
def test_alternation_and_relearning_resume_to_the_same_weights(
    balanced: tuple[Recipe, Path, Classifier], tmp_path: Path, kept: int
) -> None:
    """Resumed from before the diagnosis of the second step, and from after it."""
    recipe, run, classifier = balanced
    shutil.copytree(run, tmp_path / "run")
    for step in range(kept + 1, 5):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step}")
    again = balanced_training(recipe, tmp_path / "run", resume=True).state_dict()
    for name, value in classifier.state_dict().items():
        assert torch.equal(again[name], value), name
    for file in ("model.safetensors", "state.safetensors"):
        place = Path("checkpoints") / "step-4" / file
        assert (tmp_path / "run" / place).read_bytes() == (run / place).read_bytes()
