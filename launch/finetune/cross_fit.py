"""Cross-fitting in fine-tuning: classifiers that have not seen a clip give the evidence that fits the gate."""

import numpy as np
import torch
from numpy.typing import NDArray

from ...fusion.classifier import Classifier
from ...fusion.mechanisms.reliability import ReliabilityGate
from ...shards.errors import RequestError
from ...shards.index.selection import fraction_of
from ...shards.stream import ClipStream
from ...tasks.finetuning.aids import AidsConfig
from ...tasks.finetuning.cross_fitting import cross_fit_folds
from ...tasks.finetuning.reliability_fitting import fit_reliability
from ...tasks.finetuning.unseen_evidence import unseen_evidence
from ...tasks.splits.splits import groups_of, take
from ..schema import FinetuneConfig
from ..training.device import ranks
from .recipe import CrossFit, Recipe

GATE = "reliability"


def check_cross_fit(config: FinetuneConfig) -> None:
    """Raises `RequestError` if the settings do not go with cross-fitting."""
    if not config.cross_fit:
        if config.decision == GATE:
            raise RequestError(
                f"decision '{GATE}' is fitted to scores of clips that the scoring model has not seen: set cross_fit=3"
            )
        return
    if config.cross_fit < 2:
        raise RequestError("config key 'cross_fit' counts folds: give 2 or more, or 0 for none")
    if config.decision != GATE:
        raise RequestError(f"cross_fit fits the decision '{GATE}': set decision={GATE}, or cross_fit=0")
    if config.aids != AidsConfig():
        raise RequestError("cross_fit trains each modality by its own loss, without aids: remove 'aids'")


def cross_fit_of(recipe: Recipe, numbers: NDArray[np.int64]) -> CrossFit | None:
    """One more untrained classifier per fold of the training clips `numbers`; None without cross-fitting.

    Clips of one group share a fold. A single group cannot be divided: then the gate stays the product of its experts.
    """
    if not recipe.config.cross_fit:
        return None
    clips = fraction_of(take(recipe.index, numbers), recipe.config.data.fraction)
    keys = [sample.key for sample in clips.samples]
    groups = groups_of(clips, recipe.config.data.group) or keys
    folds = cross_fit_folds(keys, clips.column(recipe.column), groups, recipe.config.cross_fit, recipe.config.seed)
    parts = [recipe.classifier() for _ in sorted(set(folds.values()))]
    return CrossFit(parts, folds, dict(zip(keys, groups, strict=True)))


def fit_gate(recipe: Recipe, classifier: Classifier, fit: CrossFit | None, numbers: NDArray[np.int64]) -> None:
    """Fits the gate of `classifier` to the scores of its training clips by the other classifiers of `fit`.

    Prints the held-out losses of the product and of the gate.
    """
    gate = classifier.decision
    if fit is None or not fit.parts or not isinstance(gate, ReliabilityGate):
        return
    data = recipe.config.data
    clips = fraction_of(take(recipe.index, numbers), data.fraction)
    stream = ClipStream(clips, recipe.request, data.batch_size, workers=data.workers, **recipe.told)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clean, *corrupted = unseen_evidence(fit.parts, fit.fold_of, recipe.spec, stream, fit.groups, device=device)
    gate.to("cpu")
    fitted = fit_reliability(gate, clean, corrupted, recipe.config.seed)
    gate.to(device)
    if ranks()[0] == 0:
        print(
            f"gate: loss on clips that no expert has seen {fitted.loss:.3f}, of the product of the experts "
            f"{fitted.product_loss:.3f}; {fitted.steps} steps, penalty {fitted.penalty:g}",
            flush=True,
        )
