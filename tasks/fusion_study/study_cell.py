"""One cell of a fusion study: a model over stored features, judged on every subset and under noise."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...fusion.classifier import Classifier
from ...fusion.mechanisms.gates import Fused, Fusion
from ..robustness.conditions import subsets
from .feature_bank import StoredClips

Metric = Callable[[NDArray[Any], NDArray[Any]], float]


@dataclass(frozen=True)
class Cell:
    """What one model, trained with one seed on one fold, reached.

    `probabilities` of the test clips `keys`, and their `labels`; `validation`: the metric on held-out training clips;
    `weights`: mean gate weight by modality; `entropy`: of the weights as shares, relative to equal ones; `spread`:
    mean standard deviation of a weight over clips, zero for a static gate; `subsets`: the metric with only these
    modalities present; `noise`: the metric by modality and level of noise on it alone; `shuffled`: the metric with
    weights taken from another clip, none where the mechanism has no weight per modality to move.
    """

    row: str
    fold: int
    seed: int
    validation: float
    probabilities: list[list[float]]
    labels: list[int]
    keys: list[str]
    weights: dict[str, float]
    entropy: float | None
    spread: float
    subsets: dict[str, float]
    noise: dict[str, dict[str, float]]
    shuffled: float | None

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def judge_cell(
    row: str,
    fold: int,
    seed: int,
    classifier: Classifier,
    validation: StoredClips,
    test: StoredClips,
    noisy: Mapping[float, StoredClips],
    metric: Metric,
) -> Cell:
    """Everything a cell is asked. `noisy`: the test clips with noise of each level on every stream; its streams are
    put in one at a time. `metric(probabilities, labels)`.
    """
    names = classifier.backbone.modalities
    test, validation = test.only(*names), validation.only(*names)
    labels = test.label.numpy()
    probabilities, weights = score_stored(classifier, test)
    found = {}
    for kept in subsets(names)[:-1]:
        hidden = test.without(*(name for name in names if name not in kept))
        found["+".join(kept)] = metric(score_stored(classifier, hidden)[0], labels)
    clean = metric(probabilities, labels)
    noise = {name: {"0": clean} for name in names}
    for level, clips in noisy.items():
        for name in names:
            altered = test.with_stream_of(clips, name)
            noise[name][f"{level:g}"] = metric(score_stored(classifier, altered)[0], labels)
    mask = np.stack([test.present[name].any(dim=1).numpy() for name in names], axis=1)
    with shuffled_weights(classifier.decision or classifier.backbone.fusion) as moved:
        shuffled = metric(score_stored(classifier, test)[0], labels)
    return Cell(
        row,
        fold,
        seed,
        metric(score_stored(classifier, validation)[0], validation.label.numpy()),
        probabilities.tolist(),
        labels.tolist(),
        test.keys,
        {name: float(weights[mask[:, m], m].mean()) for m, name in enumerate(names)},
        _entropy(weights, mask),
        float(np.mean([weights[mask[:, m], m].std() for m in range(len(names))])),
        found,
        noise,
        shuffled if moved else None,
    )


@torch.no_grad()
def score_stored(
    classifier: Classifier, clips: StoredClips, batch_size: int = 256
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class probabilities (n, C), averaged over views, and mean gate weights (n, M)."""
    classifier.eval()
    probabilities, weights = [], []
    for rows in torch.arange(len(clips.keys)).split(batch_size):
        batch = clips.rows(rows)
        scored = classifier(batch.streams, batch.present, batch.start, batch.quality)
        probabilities.append(classifier.view_probabilities(scored.logits))
        weights.append(scored.encoded.weights.mean(dim=1))
    return torch.cat(probabilities).double().numpy(), torch.cat(weights).double().numpy()


@contextmanager
def shuffled_weights(fusion: Fusion) -> Iterator[list[bool]]:
    """While it lasts, every segment is fused with the weights of another that has the same modalities.

    Yields a list that is empty until weights have been moved: mechanisms that do not sum `weights x values` have none
    to move.
    """
    original = fusion.fuse
    moved: list[bool] = []
    generator = torch.Generator().manual_seed(0)

    def fuse(values: Tensor, weights: Tensor, mask: Tensor) -> Fused:
        moved.append(True)
        flat, rows = weights.flatten(0, -2).clone(), mask.flatten(0, -2)
        for pattern in rows.unique(dim=0):
            same = (rows == pattern).all(dim=1).nonzero()[:, 0]
            flat[same] = flat[same[torch.randperm(len(same), generator=generator)]]
        return original(values, flat.view_as(weights), mask)

    fusion.fuse = fuse  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield moved
    finally:
        del fusion.fuse


def _entropy(weights: NDArray[np.float64], mask: NDArray[np.bool_]) -> float | None:
    several = mask.sum(axis=1) > 1
    if not several.any():
        return None
    kept = np.clip(weights[several], 0, None) * mask[several]
    shares = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
    return float((entropy / np.log(mask[several].sum(axis=1))).mean())
