"""Upper reference of a gate: the product of a row's experts, with weights that know the corrupted stream."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...fusion.classifier import Classifier
from ...fusion.mechanisms.decision import Decision
from .feature_bank import StoredClips

# Weights of a corrupted stream to choose from; 1 is the product, 0 ignores the stream.
WEIGHTS = tuple(step / 10 for step in range(11))


def oracle_score(
    classifier: Classifier,
    clips: StoredClips,
    corrupted: str | None,
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
) -> float:
    """Returns the metric of `oracle_probabilities` on `clips`."""
    return metric(oracle_probabilities(classifier, clips, corrupted).double().numpy(), clips.label.numpy())


def oracle_probabilities(classifier: Classifier, clips: StoredClips, corrupted: str | None) -> Tensor:
    """Returns class probabilities (n, C) of the product of the experts, weighted by the true corruption.

    - `classifier`: with a decision that joins class scores. Its heads per modality are the experts, with the
      temperatures of the decision if it has any.
    - `corrupted`: the modality that is corrupted in every clip. None: the clips are clean.

    `log p = sum_m w_m log p_m` with `w_m = 1` for clean streams. The corrupted stream has one weight in all clips:
    the one of `WEIGHTS` with the lowest mean of `-log p` of the true class on these clips. On clean clips this is the
    product of the experts. The choice uses the labels of the clips, so this is an upper reference and not a model.

    Raises `ValueError` for a classifier without a decision.
    """
    decision = classifier.decision
    if not isinstance(decision, Decision):
        raise ValueError("the oracle weighs class scores: give a classifier whose decision is a Decision")
    opinions, present = _opinions(classifier, decision, clips)
    best: tuple[float, Tensor] | None = None
    for weight in WEIGHTS if corrupted is not None else (1.0,):
        weights = present.to(opinions.dtype)
        if corrupted is not None:
            weights[..., classifier.backbone.modalities.index(corrupted)] *= weight
        with torch.no_grad():
            found = classifier.view_probabilities(decision.fuse(opinions, weights, present).embedding)
        loss = -float(found[torch.arange(len(found)), clips.label].clamp_min(1e-12).log().mean())
        if best is None or loss < best[0]:
            best = loss, found
    assert best is not None
    return best[1]


@torch.no_grad()
def _opinions(
    classifier: Classifier, decision: Decision, clips: StoredClips, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Log probabilities (n, V, M, C) of the experts, and presence (n, V, M)."""
    classifier.eval()
    opinions, masks = [], []
    for rows in torch.arange(len(clips.keys)).split(batch_size):
        batch = clips.rows(rows)
        scored = classifier(batch.streams, batch.present, batch.start, batch.quality)
        logits, mask = decision.logits(scored.unimodal, scored.encoded.present)
        opinions.append(decision.opinions(logits))
        masks.append(mask)
    return torch.cat(opinions), torch.cat(masks)
