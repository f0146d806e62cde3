"""One cell of a fusion study: a model on stored features, scored on every modality subset and under noise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...fusion.classifier import Classifier
from ...fusion.mechanisms.decision import Decision
from ...fusion.mechanisms.gates import Fused, Fusion
from ..robustness.conditions import subsets
from ..robustness.corruptions import alters
from .feature_bank import Corruption, StoredClips
from .oracle_weights import oracle_score

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
    """Standard deviation of a gate weight over clips with the same modalities, averaged over modalities.

    Zero for a static gate.
    """
    subsets: dict[str, float]
    """The metric with only these modalities present."""
    noise: dict[str, dict[str, float]]
    """The metric by modality and noise level, with noise on that modality alone."""
    held_out: dict[str, dict[str, float]]
    """The metric by modality and corruption, with that modality alone corrupted as in no training."""
    shuffled: float | None
    """The metric with gate weights taken from other clips. None if the mechanism has no weights to take."""
    mean_gate: float | None
    """The metric with gate weights replaced by their mean over segments with the same modalities.

    None as in `shuffled`.
    """
    oracle_noise: dict[str, dict[str, float]] = field(default_factory=dict)
    """As `noise`, by weights that know the corrupted stream (`oracle_score`). Empty if the row joins features."""
    oracle_held_out: dict[str, dict[str, float]] = field(default_factory=dict)
    """As `held_out`, by `oracle_score`."""

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
    held_out: Mapping[Corruption, StoredClips] | None = None,
) -> Cell:
    """Scores a trained classifier on all tests of a cell.

    - `noisy`: test clips by noise level, with noise on all modalities. One modality at a time is taken from them.
    - `metric(probabilities, labels)`: the metric.
    - `held_out`: test clips by corruption, with all modalities corrupted that it alters; taken one at a time.
    """
    names = classifier.backbone.modalities
    test, validation = test.only(*names), validation.only(*names)
    labels = test.label.numpy()
    probabilities, weights = score_stored(classifier, test)
    found = {}
    for kept in subsets(names)[:-1]:
        hidden = test.without(*(name for name in names if name not in kept))
        found["+".join(kept)] = metric(score_stored(classifier, hidden)[0], labels)
    noise: dict[str, dict[str, float]] = {}
    unseen: dict[str, dict[str, float]] = {}
    oracle_noise: dict[str, dict[str, float]] = {}
    oracle_unseen: dict[str, dict[str, float]] = {}
    for name in names:
        noise[name] = {"0": metric(probabilities, labels)}
        loud = {f"{level:g}": test.with_stream_of(clips, name) for level, clips in noisy.items()}
        noise[name] |= {level: metric(score_stored(classifier, clips)[0], labels) for level, clips in loud.items()}
        strange = {
            f"{axis} {level:g}": test.with_stream_of(clips, name)
            for (axis, level), clips in (held_out or {}).items()
            if alters(axis, name)
        }
        unseen[name] = {kind: metric(score_stored(classifier, clips)[0], labels) for kind, clips in strange.items()}
        if isinstance(classifier.decision, Decision):
            oracle_noise[name] = {"0": oracle_score(classifier, test, None, metric)}
            oracle_noise[name] |= {level: oracle_score(classifier, c, name, metric) for level, c in loud.items()}
            oracle_unseen[name] = {kind: oracle_score(classifier, c, name, metric) for kind, c in strange.items()}
    mask = np.stack([test.present[name].any(dim=1).numpy() for name in names], axis=1)
    fusion = classifier.decision or classifier.backbone.fusion
    with shuffled_weights(fusion) as moved:
        shuffled = metric(score_stored(classifier, test)[0], labels)
    with recorded_weights(fusion) as recorded:
        score_stored(classifier, test)
    with mean_weights(fusion, recorded):
        averaged = metric(score_stored(classifier, test)[0], labels)
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
        _spread(weights, np.stack([test.present[name].sum(dim=1).numpy() for name in names], axis=1)),
        found,
        noise,
        unseen,
        shuffled if moved else None,
        averaged if moved else None,
        oracle_noise,
        oracle_unseen,
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

    Weights per channel move together. Yields a list that stays empty if no weights were moved: mechanisms that do not
    join values by weights have none.
    """
    moved: list[bool] = []
    generator = torch.Generator().manual_seed(0)

    def shuffled(weights: Tensor, mask: Tensor) -> Tensor:
        moved.append(True)
        found = weights.clone()
        for same in _alike(mask):
            found[same] = weights[same[torch.randperm(len(same), generator=generator)]]
        return found

    with _changed_weights(fusion, shuffled):
        yield moved


@contextmanager
def recorded_weights(fusion: Fusion) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Within the context, records the gate weights and the presence (N, M) of all segments, batch by batch.

    Weights are (N, M), or (N, M, D) with a weight per channel.
    """
    found: list[tuple[Tensor, Tensor]] = []

    def kept(weights: Tensor, mask: Tensor) -> Tensor:
        found.append((weights, mask))
        return weights

    with _changed_weights(fusion, kept):
        yield found


@contextmanager
def mean_weights(fusion: Fusion, recorded: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Within the context, every segment is fused with the mean gate weights of segments with the same modalities.

    - `recorded`: weights and presence of the segments, from `recorded_weights`.
    """
    means: dict[tuple[bool, ...], Tensor] = {}
    if recorded:
        weights, masks = (torch.cat(parts) for parts in zip(*recorded, strict=True))
        means = {tuple(masks[same[0]].tolist()): weights[same].mean(dim=0) for same in _alike(masks)}

    def averaged(weights: Tensor, mask: Tensor) -> Tensor:
        found = weights.clone()
        for same in _alike(mask):
            found[same] = means[tuple(mask[same[0]].tolist())].to(weights.dtype)
        return found

    with _changed_weights(fusion, averaged):
        yield


@contextmanager
def _changed_weights(fusion: Fusion, change: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Within the context, `fusion` joins values by the weights `change(weights (N, M), presence (N, M))`.

    Weights per channel are (N, M, D).
    """

    def changed(original: Callable[..., Fused]) -> Callable[..., Fused]:
        def join(values: Tensor, weights: Tensor, mask: Tensor) -> Fused:
            rows = change(weights.flatten(0, mask.dim() - 2), mask.flatten(0, -2))
            return original(values, rows.view_as(weights), mask)

        return join

    # A mixture of probabilities has weights too.
    names = [name for name in ("fuse", "mixture") if hasattr(fusion, name)]
    for name in names:
        setattr(fusion, name, changed(getattr(fusion, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(fusion, name)


def _alike(mask: Tensor) -> list[Tensor]:
    """Returns the row numbers of each pattern of presence in `mask` (N, M)."""
    return [(mask == pattern).all(dim=1).nonzero()[:, 0] for pattern in mask.unique(dim=0)]


def _spread(weights: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Returns the standard deviation of the weights (n, M), averaged over modalities.

    Only clips with the same modalities are compared: a static average also gives a modality more weight where
    another one is absent. Modalities that no clip has are skipped.

    - `counts` (n, M): number of views that have the modality.
    """
    _, patterns = np.unique(counts, axis=0, return_inverse=True)
    patterns = patterns.reshape(-1)
    sizes = np.bincount(patterns)[:, None]
    sums = np.zeros((len(sizes), weights.shape[1]))
    np.add.at(sums, patterns, weights)
    # A pattern of one clip has no spread to measure.
    several = sizes[patterns, 0] > 1
    gaps = (weights - (sums / sizes)[patterns]) ** 2
    found = [gaps[several & (counts[:, m] > 0), m] for m in range(weights.shape[1])]
    known = [float(np.sqrt(part.mean())) for part in found if len(part)]
    return float(np.mean(known)) if known else 0.0


def _entropy(weights: NDArray[np.float64], mask: NDArray[np.bool_]) -> float | None:
    several = mask.sum(axis=1) > 1
    if not several.any():
        return None
    kept = np.clip(weights[several], 0, None) * mask[several]
    shares = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
    return float((entropy / np.log(mask[several].sum(axis=1))).mean())
