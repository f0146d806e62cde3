"""Weights of the modalities in a fine-tuned classifier, from how well their pretrained features predict the label."""

import numpy as np
import torch
from numpy.typing import NDArray

from ...fusion.classifier import Classifier
from ...fusion.mechanisms.decision import WeightedMeanDecision
from ...shards.stream import ClipStream
from ...tasks.features.cache import cached_features
from ...tasks.probes.modality_evidence import modality_evidence, votes_of
from ...tasks.splits.splits import groups_of, take
from ..training.device import ranks
from .recipe import Recipe

# Largest number of training clips to use: the error of an AUC is then about 0.01.
MOST = 2000


def weigh_modalities(recipe: Recipe, classifier: Classifier, numbers: NDArray[np.int64], name: str) -> None:
    """Sets the weights of the decision `weighted_mean` from training clips. Other decisions are not changed.

    recipe: of the fine-tuning. Without a pretrained encoder all weights stay equal.
    classifier: to set the weights of.
    numbers: training clips, of which the share `data.fraction` is read, as in training.
    name: of the split, for the printed line.

    The weight of a modality follows from the cross-validated AUC of a probe on its frozen features (see
    `modality_evidence`).
    """
    decision = classifier.decision
    if not isinstance(decision, WeightedMeanDecision) or recipe.start is None:
        return
    index, data = recipe.index, recipe.config.data
    numbers = recipe.used(numbers)
    if len(numbers) > MOST:
        numbers = np.sort(np.random.default_rng(recipe.config.seed).permutation(numbers)[:MOST])
    stream = ClipStream(take(index, numbers), recipe.request, data.batch_size, workers=data.workers, **recipe.told)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    [features] = cached_features([classifier.backbone], recipe.spec, stream, None, device)
    groups = groups_of(index, data.group)
    evidence = modality_evidence(
        features,
        recipe.labels[numbers],
        len(recipe.classes),
        None if groups is None else [groups[number] for number in numbers],
    )
    decision.set_votes(votes_of(evidence))
    if ranks()[0] == 0:
        areas = ", ".join(f"{modality} {area:.3f}" for modality, area in evidence.items())
        print(f"{name}: weights from the AUC of pretrained features on training clips: {areas}", flush=True)
