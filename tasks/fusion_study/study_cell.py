"""One cell of a fusion study: a model on stored features, scored on every modality subset and under noise."""

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
    """Results of one model, trained with one seed on one fold."""

    row: str
    """Name of the model."""
    fold: int
    seed: int
    validation: float
    """The metric on held-out training clips."""
    probabilities: list[list[float]]
    """Class probabilities of the test clips."""
    labels: list[int]
    """Class numbers of the test clips."""
    keys: list[str]
    """Keys of the test clips."""
    weights: dict[str, float]
    """Mean gate weight by modality."""
    entropy: float | None
    """Mean entropy of the gate weights as shares, divided by that of equal weights.

    None if no clip has two modalities.
    """
    spread: float
    """Standard deviation of a gate weight over clips, averaged over modalities. Zero for a static gate."""
    subsets: dict[str, float]
    """The metric with only these modalities present."""
    noise: dict[str, dict[str, float]]
    """The metric by modality and noise level, with noise on that modality alone."""
    shuffled: float | None
    """The metric with gate weights taken from other clips. None if the mechanism has no weight per modality."""

    def plain(self) -> dict[str, Any]:
        """Returns the cell as plain data for JSON."""
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
    """Scores a trained classifier on all tests of a cell.

    - `noisy`: test clips by noise level, with noise on all modalities. One modality at a time is taken from them.
    - `metric(probabilities, labels)`: the metric.
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
    """Returns class probabilities (n, C), averaged over views, and mean gate weights (n, M)."""
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
    """Within the context, every segment is fused with the gate weights of another segment with the same modalities.

    Yields a list that stays empty if no weights were moved: mechanisms that do not sum `weights x values` have none.
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
