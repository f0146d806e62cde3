"""How much each modality counts in a fine-tuned classifier, from what its pretrained features tell of the label."""

import numpy as np
import torch
from numpy.typing import NDArray

from ...fusion.bundle.bundle_files import local_bundle
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.decision import WeightedMeanDecision
from ...shards.stream import ClipStream
from ...tasks.features.cache import cached_features
from ...tasks.probes.modality_evidence import modality_evidence, votes_of
from ...tasks.splits.splits import groups_of, take
from ..runs.bundles import cache_folder
from ..training.device import ranks
from .recipe import Recipe

# The most clips that are looked at: the error of an AUC is then about .01.
MOST = 2000


def weigh_modalities(recipe: Recipe, classifier: Classifier, numbers: NDArray[np.int64], name: str) -> None:
    """Sets the weights of decision `weighted_mean` from the training clips `numbers`; any other is left as it is.

    A modality counts by how well a probe of its frozen features tells classes apart on clips that did not fit the
    probe (`modality_evidence`). From random weights nothing is known, and all count equally. `name`: of the split,
    for the line that is printed.
    """
    decision = classifier.decision
    if not isinstance(decision, WeightedMeanDecision) or recipe.start is None:
        return
    index, data = recipe.index, recipe.config.data
    # Chosen among all clips, so that splits that share an encoder share its features too.
    chosen = np.sort(np.random.default_rng(recipe.config.seed).permutation(len(index.samples))[:MOST])
    stream = ClipStream(take(index, chosen), recipe.request, data.batch_size, workers=data.workers, **recipe.told)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # With the encoder's run: the folder of this one is still empty where there is one split.
    kept = cache_folder(local_bundle(recipe.config.encoder or ""))
    [features] = cached_features([classifier.backbone], recipe.spec, stream, kept, device)
    trained = np.isin(chosen, numbers)
    groups = groups_of(index, data.group)
    evidence = modality_evidence(
        features.rows(trained),
        recipe.labels[chosen[trained]],
        len(recipe.classes),
        None if groups is None else [groups[number] for number in chosen[trained]],
    )
    decision.set_votes(votes_of(evidence))
    if ranks()[0] == 0:
        told = ", ".join(f"{modality} {area:.3f}" for modality, area in evidence.items())
        print(f"{name}: votes by the AUC of pretrained features on training clips: {told}", flush=True)
