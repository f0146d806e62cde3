"""Cross-fitting in fine-tuning: classifiers that have not seen a clip give the evidence that fits the gate."""

import numpy as np
import torch
from numpy.typing import NDArray

from ...fusion.classifier import Classifier
from ...fusion.mechanisms.reliability import ReliabilityGate
from ...shards.errors import RequestError
from ...shards.stream import ClipStream
from ...tasks.finetuning.balance.aids import AidsConfig
from ...tasks.finetuning.cross_fitting import cross_fit_folds
from ...tasks.finetuning.reliability_fitting import fit_reliability
from ...tasks.finetuning.unseen_evidence import unseen_evidence
from ...tasks.splits.splits import Split, groups_of, take
from ..config.defaults import GATE
from ..runs.logbook import warn
from ..schema import FinetuneConfig
from ..training.device import ranks
from .recipe import CrossFit, Recipe


def check_cross_fit(config: FinetuneConfig) -> None:
    """Raises `RequestError` if the settings leave nothing to fit the gate to, or exclude each other."""
    gated = config.decision == GATE
    if gated and not (config.cross_fit or config.hold_out):
        raise RequestError(
            f"decision '{GATE}' is fitted to scores of clips that the scoring model has not seen: set cross_fit=2, "
            "or hold_out=true"
        )
    if config.cross_fit == 1:
        raise RequestError("config key 'cross_fit' counts folds: give 2 or more, or 0 for none")
    if config.cross_fit and not gated:
        raise RequestError(f"cross_fit fits the decision '{GATE}': set decision={GATE}, or cross_fit=0")
    if gated and config.aids != AidsConfig():
        raise RequestError(f"decision '{GATE}' trains each modality by its own loss, without aids: remove 'aids'")


def cross_fit_of(recipe: Recipe, numbers: NDArray[np.int64]) -> CrossFit | None:
    """One more untrained classifier per fold of the training clips `numbers`; None without cross-fitting.

    Clips of one group share a fold. A single group cannot be divided: then the gate stays the product of its experts.
    """
    if not recipe.config.cross_fit:
        return None
    clips = take(recipe.index, recipe.used(numbers))
    keys = [sample.key for sample in clips.samples]
    groups = groups_of(clips, recipe.config.data.group) or keys
    folds = cross_fit_folds(keys, clips.column(recipe.column), groups, recipe.config.cross_fit, recipe.config.seed)
    parts = [recipe.classifier() for _ in sorted(set(folds.values()))]
    return CrossFit(parts, folds)


def fit_gate(recipe: Recipe, classifier: Classifier, fit: CrossFit | None, split: Split) -> None:
    """Fits the gate of `classifier` to scores of clips by models that have not seen them.

    With cross-fitting these are the training clips, scored by the other classifiers of `fit`; otherwise the
    validation clips, scored by `classifier`. Prints the held-out losses of the product and of the gate.
    """
    gate = classifier.decision
    if not isinstance(gate, ReliabilityGate):
        return
    if fit is not None and not fit.parts:
        if ranks()[0] == 0:
            warn(
                f"the training clips of '{split.name}' are one group in column '{recipe.config.data.group}': the "
                "gate is not fitted and multiplies the modalities' scores; give groups, or decision=mean"
            )
        return
    index, data = recipe.index, recipe.config.data
    clips = take(index, split.validation if fit is None else recipe.used(split.train))
    if not clips.samples:
        return
    keys = [sample.key for sample in clips.samples]
    groups = groups_of(clips, data.group) or keys
    # Training has skipped damaged clips and checked their share.
    stream = ClipStream(clips, recipe.request, data.batch_size, workers=data.workers, max_damaged=1.0, **recipe.told)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clean, *corrupted = unseen_evidence(
        [classifier] if fit is None else fit.parts,
        dict.fromkeys(keys, 0) if fit is None else fit.fold_of,
        recipe.spec,
        stream,
        dict(zip(keys, groups, strict=True)),
        device=device,
    )
    gate.to("cpu")
    fitted = fit_reliability(gate, clean, corrupted, recipe.config.seed)
    gate.to(device)
    if ranks()[0] == 0:
        print(
            f"gate: held-out loss {fitted.loss:.3f} on {len(clean.label)} clips (product of experts: "
            f"{fitted.product_loss:.3f}); {fitted.steps} steps, penalty {fitted.penalty:g}",
            flush=True,
        )
