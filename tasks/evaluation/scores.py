"""Class probabilities of every clip of an index under a classifier."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...fusion.classifier import Classifier
from ...shards.clip_spec import ClipSpec
from ...shards.errors import DataError
from ...shards.index.whole_file import whole_file
from ...shards.stream import ClipStream
from ...shards.transforms import Preparation
from ...ssl.gather import world_size
from ..features.across_processes import share_batches
from ..metrics.fold_means import Folds


@dataclass
class Scores:
    """Class probabilities of n clips."""

    probabilities: NDArray[np.float32]
    """Probabilities (n, C), averaged over views."""
    weights: NDArray[np.float32]
    """Mean gate weights (n, M)."""
    labels: NDArray[np.int64]
    """Class numbers (n,). With several classes per clip: 0 and 1 (n, C)."""
    keys: list[str]
    """Clip keys."""
    folds: list[str] = field(default_factory=list)
    """Name of the fold whose model scored each clip (n,). Empty: one model scored all."""

    @cached_property
    def divided(self) -> Folds:
        """The folds of the clips, to average metrics of rankings over them."""
        return Folds.of(self.folds, len(self.keys))


def score_clips(
    classifier: Classifier,
    spec: ClipSpec,
    stream: ClipStream,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Scores the clips of `stream.evaluate()` in evaluation mode, without augmentation.

    Several processes share the batches. Each returns all scores.

    - `progress(clips)`: called with the number of newly scored clips.
    """
    classifier = classifier.to(device).eval()
    if world_size() > 1:
        # Batch statistics differ between processes. The first one's are exported, so all use these.
        for buffer in classifier.buffers():
            dist.broadcast(buffer, 0)
    return join_scores(share_batches(stream, lambda part: _score(classifier, spec, part, device, progress)))


@torch.no_grad()
def _score(
    classifier: Classifier,
    spec: ClipSpec,
    stream: ClipStream,
    device: torch.device | str,
    progress: Callable[[int], None] | None,
) -> Iterator[Scores]:
    preparation = Preparation(spec).to(device)
    for batch in stream.evaluate():
        batch = batch.to(device)
        scored = classifier(preparation(batch), batch.present, batch.start)
        valid = batch.valid.cpu()
        assert batch.label is not None, "scoring needs a stream with labels: set its label column"
        yield Scores(
            classifier.view_probabilities(scored.logits).cpu()[valid].numpy(),
            scored.encoded.weights.mean(dim=1).float().cpu()[valid].numpy(),
            batch.label.cpu()[valid].numpy(),
            [key for key, keep in zip(batch.key, valid.tolist(), strict=True) if keep],
        )
        if progress is not None:
            progress(int(valid.sum()))


def join_scores(parts: Sequence[Scores]) -> Scores:
    """Concatenates the scores of several batches."""
    return Scores(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [key for part in parts for key in part.keys],
    )


def join_folds(names: Sequence[str], parts: Sequence[Scores]) -> Scores:
    """Concatenates the scores of several folds and keeps the name of each clip's fold."""
    folds = [name for name, part in zip(names, parts, strict=True) for _ in part.keys]
    return replace(join_scores(parts), folds=folds)


def save_scores(scores: Scores, units: Sequence[str], classes: Sequence[str], path: Path) -> None:
    """Writes scores with their folds, the group of each clip (`units`) and the class names to `path`, atomically."""
    arrays = {"probabilities": scores.probabilities, "weights": scores.weights, "labels": scores.labels}
    facts = {"keys": scores.keys, "folds": scores.folds, "units": list(units), "classes": list(classes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with whole_file(path) as partial:
        save_file(arrays, partial, {"facts": json.dumps(facts)})


def load_scores(path: Path) -> tuple[Scores, list[str], list[str]]:
    """Returns scores, units and classes written by `save_scores`. Raises `DataError` if the file is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads(file.metadata()["facts"])
            arrays = {name: file.get_tensor(name) for name in ("probabilities", "weights", "labels")}
        return Scores(**arrays, keys=facts["keys"], folds=facts["folds"]), facts["units"], facts["classes"]
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"scores '{path}' are damaged ({error}): rerun the evaluation") from error
