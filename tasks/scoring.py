"""Class probabilities of every clip of an index under a classifier."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..fusion.classifier import Classifier, view_probabilities
from ..shards.errors import DataError
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


def save_scores(scores: Scores, units: Sequence[str], classes: Sequence[str], path: Path) -> None:
    """Writes scores, the bootstrap's `units` by clip and the class names to `path`, whole or not at all."""
    arrays = {"probabilities": scores.probabilities, "weights": scores.weights, "labels": scores.labels}
    facts = {"keys": scores.keys, "units": list(units), "classes": list(classes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, partial, {"facts": json.dumps(facts)})
    partial.replace(path)


def load_scores(path: Path) -> tuple[Scores, list[str], list[str]]:
    """What `save_scores` wrote: scores, units, classes; `DataError` names a damaged file."""
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads(file.metadata()["facts"])
            arrays = {name: file.get_tensor(name) for name in ("probabilities", "weights", "labels")}
        return Scores(**arrays, keys=facts["keys"]), facts["units"], facts["classes"]
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"scores '{path}' are damaged ({error}): run the evaluation again") from error
