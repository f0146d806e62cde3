"""Gradient blending: weights of the modalities' heads, from trials on held-out training clips."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate.utils import set_seed
from numpy.typing import NDArray

from ...fusion.classifier import Classifier
from ...shards.errors import RequestError
from ...tasks.finetuning.balance.aids import AidsConfig
from ...tasks.finetuning.balance.gradient_blending import Losses, blend_weights
from ...tasks.finetuning.early_stopping import mean_loss
from ...tasks.splits.splits import Split, hold_out
from ..training.device import ranks
from .recipe import Recipe, train_classifier

JOINT = "joint"

# File name in a run folder.
WEIGHTS = "blending.json"


def head_weights(recipe: Recipe, split: Split, run: Path) -> dict[str, float]:
    """Weights of the heads, `joint` among them, that sum to one (Wang, Tran & Feiszli 2020, offline form).

    Each modality alone, and all together, train for the share `aids.blending` of the steps on four fifths of the
    split's training clips, from the same start. Their losses before and after, on these clips and on the rest, give
    the weights. On a CPU a resumed run finds the same weights. Raises `RequestError` without heads per modality.
    """
    if recipe.config.unimodal_weight <= 0 or recipe.config.decision:
        raise RequestError("aids.blending weights heads per modality: set unimodal_weight above 0, and no decision")
    # Four fifths of the clips in use train, one fifth measures.
    split = replace(split, train=recipe.used(split.train), validation=split.test[:0])
    data = replace(recipe.config.data, fraction=1.0)
    recipe = replace(recipe, config=replace(recipe.config, data=data))
    fifth = hold_out(split, recipe.index, recipe.strata, data.group, recipe.config.seed)
    before, after = {}, {}
    for name in (*recipe.request.modalities, JOINT):
        set_seed(recipe.config.seed)
        short, classifier = _tried(recipe, name)
        before[name] = _losses(short, classifier, fifth)
        folder = run.with_name(f"{run.name}-blending-{name}")
        if ranks()[0] == 0:
            shutil.rmtree(folder, ignore_errors=True)
        train_classifier(short, classifier, fifth.train, folder)
        after[name] = _losses(short, classifier, fifth)
        if ranks()[0] == 0:
            shutil.rmtree(folder)
    return blend_weights(before, after)


def _tried(recipe: Recipe, name: str) -> tuple[Recipe, Classifier]:
    config = recipe.config
    steps = max(round(config.aids.blending * config.train.steps), 1)
    if name == JOINT:
        short = replace(recipe, config=replace(config, unimodal_weight=0.0, aids=AidsConfig()))
        classifier = short.classifier()
    else:
        short, classifier = recipe.alone(name)
    loop = replace(config.train, steps=steps, checkpoint_every=steps)
    return replace(short, config=replace(short.config, train=loop, wandb="disabled")), classifier


def _losses(recipe: Recipe, classifier: Classifier, split: Split) -> Losses:
    """Losses on the held-out clips and on as many training clips."""
    few = np.random.default_rng(recipe.config.seed).permutation(split.train)[: len(split.validation)]
    return Losses(_loss(recipe, classifier, few), _loss(recipe, classifier, split.validation))


def _loss(recipe: Recipe, classifier: Classifier, numbers: NDArray[np.int64]) -> float:
    return mean_loss(recipe.score(classifier, np.sort(numbers)))
