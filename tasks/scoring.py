"""Class probabilities of every clip of an index under a classifier."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..fusion.classifier import Classifier, view_probabilities
from ..shards.stream import ClipStream
from ..shards.transforms import ClipSpec, Preparation


@dataclass
class Scores:
    """`probabilities` (n, C), views averaged after softmax; `weights` (n, M) mean gate weights; `labels` (n,)."""

    probabilities: NDArray[np.float32]
    weights: NDArray[np.float32]
    labels: NDArray[np.int64]
    keys: list[str]


@torch.no_grad()
def score_clips(
    classifier: Classifier,
    spec: ClipSpec,
    stream: ClipStream,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Runs `stream.evaluate()` through the classifier in evaluation mode, without augmentation."""
    classifier = classifier.to(device).eval()
    preparation = Preparation(spec).to(device)
    probabilities, weights, labels, keys = [], [], [], []
    for batch in stream.evaluate():
        batch = batch.to(device)
        scored = classifier(preparation(batch), batch.present, batch.start)
        valid = batch.valid.cpu()
        probabilities.append(view_probabilities(scored.logits).cpu()[valid])
        weights.append(scored.encoded.weights.mean(dim=1).float().cpu()[valid])
        assert batch.label is not None, "scoring needs a stream with labels"
        labels.append(batch.label.cpu()[valid])
        keys += [key for key, keep in zip(batch.key, valid.tolist(), strict=True) if keep]
        if progress is not None:
            progress(int(valid.sum()))
    return Scores(torch.cat(probabilities).numpy(), torch.cat(weights).numpy(), torch.cat(labels).numpy(), keys)
