"""The objective of a fine-tuning: its weights and its loss of guessing come from the training clips in use."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.launch.config.load import load_config
from modalgate.launch.finetune.recipe import Recipe, set_up, supervised_objective
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
