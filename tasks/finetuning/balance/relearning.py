"""Encoders whose features separate training clips better than held-out clips move back to their first weights."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ....fusion.classifier import Classifier
from ....shards.clip_spec import ClipSpec
from ....shards.stream import ClipStream
from ....shards.transforms import Preparation
from ....ssl.gather import world_size
from ...features.across_processes import from_first, share_batches

Rows = tuple[NDArray[np.float64], NDArray[np.int64]]
Measure = Callable[[int], dict[str, float]]


def purity(clusters: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Returns the share of clips (n,) whose label is the most frequent one of their cluster.

    >>> purity(np.array([0, 0, 0, 1]), np.array([5, 5, 7, 7]))
    0.75
    """
    return sum(int(np.bincount(labels[clusters == cluster]).max()) for cluster in np.unique(clusters)) / len(labels)


def separability(features: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> float:
    """Returns the purity of k-means clusters, one per class, of features (n, D) against labels (n,).

    Each feature is scaled to [-1, 1] first. K-means starts four times from fixed seeds.
    """
    from sklearn.cluster import KMeans  # takes a second to import
    from threadpoolctl import threadpool_limits

    low, span = features.min(axis=0), np.ptp(features, axis=0)
    scaled = 2 * (features - low) / np.where(span > 0, span, 1) - 1
    # Points fewer than clusters, also where several are equal, would only warn.
    clusters = min(classes, len(np.unique(scaled, axis=0)))
    # Sums round the same on any number of threads.
    with threadpool_limits(1):
        found = KMeans(clusters, n_init=4, random_state=0).fit_predict(scaled)  # pyright: ignore[reportArgumentType]
    return purity(found, labels)


def separability_gaps(training: dict[str, Rows], held_out: dict[str, Rows], classes: int) -> dict[str, float]:
    """Returns `|purity of training features - purity of held-out features|` by modality.

    - `training`, `held_out`: features (n, D) and labels (n,) by modality.
    - `classes`: number of classes.

    Purity rises as clips get fewer. The larger set is therefore thinned evenly to the size of the smaller one. A
    modality that one of the sets lacks is not in the result.
    """
    gaps = {}
    for name, rows in training.items():
        others = held_out.get(name)
        if others is None:
            continue
        count = min(len(rows[1]), len(others[1]))
        first, second = (separability(*_thinned(part, count), classes) for part in (rows, others))
        gaps[name] = abs(first - second)
    return gaps


class Relearning:
    """Diagnosing & Re-learning (Wei et al. 2024), as an `Evaluation` of the training loop.

    Every `every` steps, but not after the last, the parameters of each encoder and its projection become

        a theta_first + (1 - a) theta,  a = tanh(strength * gap)

    with the gap of `separability_gaps` between training clips and held-out clips. Buffers, such as the statistics
    of a norm, and the optimiser's moments stay. The paper does so every 20 of 50 epochs, with strength 3.

    - `classifier`: trained in place. Its weights now are `theta_first`.
    - `spec`: how to prepare the streams.
    - `training`, `held_out`: streams of clips with labels, one class per clip, read without augmentation.
    - `steps`: of the whole training.
    - `beside`, `beside_every`: a further measurement with its own interval, which comes first.

    Calling it with a step returns what `beside` measured, and `relearning/NAME`, the share a of each modality.
    Several processes share the encoding and get equal weights.
    """

    def __init__(
        self,
        classifier: Classifier,
        spec: ClipSpec,
        training: ClipStream,
        held_out: ClipStream,
        strength: float,
        every: int,
        steps: int,
        beside: Measure | None = None,
        beside_every: int = 0,
    ) -> None:
        self.classifier, self.spec, self.strength = classifier, spec, strength
        self.training, self.held_out = training, held_out
        self.every, self.steps = every, steps
        self.beside, self.beside_every = beside, beside_every
        self.first = {name: [p.detach().cpu().clone() for p in self._trained(name)] for name in self.modalities}

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.classifier.backbone.modalities

    @property
    def interval(self) -> int:
        """Steps between two calls that miss neither interval."""
        return self.every if self.beside is None else math.gcd(self.every, self.beside_every)

    @property
    def stop(self) -> bool:
        return bool(getattr(self.beside, "stop", False))

    def __call__(self, step: int) -> dict[str, float]:
        figures: dict[str, float] = {}
        if self.beside is not None and (step % self.beside_every == 0 or step == self.steps):
            figures |= self.beside(step)
        if step % self.every == 0 and step < self.steps:
            figures |= {f"relearning/{name}": share for name, share in self.relearn().items()}
        return figures

    def relearn(self) -> dict[str, float]:
        """Moves the encoders and returns their shares a, by modality."""
        classes = len(self.classifier.classes)
        seen = modality_features(self.classifier, self.spec, self.training)
        unseen = modality_features(self.classifier, self.spec, self.held_out)
        gaps = from_first(lambda: separability_gaps(seen, unseen, classes))
        shares = {name: math.tanh(self.strength * gap) for name, gap in gaps.items()}
        with torch.no_grad():
            for name, share in shares.items():
                for weight, first in zip(self._trained(name), self.first[name], strict=True):
                    weight.copy_(share * first.to(weight.device) + (1 - share) * weight)
        return shares

    def _trained(self, name: str) -> list[Tensor]:
        backbone = self.classifier.backbone
        modules = (backbone.encoders[name], backbone.projections[name])
        return [weight for module in modules for weight in module.parameters() if weight.requires_grad]


def modality_features(classifier: Classifier, spec: ClipSpec, stream: ClipStream) -> dict[str, Rows]:
    """Returns features (n, D), the mean over present views, and labels (n,) of the clips that have each modality.

    The classifier is left in evaluation mode. Several processes share the batches, and each gets all features.
    """
    classifier.eval()
    if world_size() > 1:
        # Batch statistics differ between processes: all use those of the first.
        for buffer in classifier.buffers():
            dist.broadcast(buffer, 0)
    parts = share_batches(stream, lambda part: _features(classifier, spec, part))
    found = {}
    for name in classifier.backbone.modalities:
        rows = [part[name] for part in parts if len(part[name][1])]
        if rows:
            features, labels = zip(*rows, strict=True)
            found[name] = np.concatenate(features), np.concatenate(labels)
    return found


@torch.no_grad()
def _features(classifier: Classifier, spec: ClipSpec, stream: ClipStream) -> Iterator[dict[str, Rows]]:
    backbone: Any = classifier.backbone
    device = next(backbone.parameters()).device
    preparation = Preparation(spec).to(device)
    for batch in stream.evaluate():
        batch = batch.to(device)
        streams = preparation(batch)
        assert batch.label is not None, "a diagnosis needs a stream with labels"
        found = {}
        for name in backbone.modalities:
            there = batch.present.get(name, torch.zeros_like(batch.start, dtype=torch.bool))
            features = backbone.encode(name, streams.get(name), there).features.double()
            counted = there.sum(dim=1)
            mean = features.sum(dim=1) / counted.clamp_min(1)[:, None]
            kept = (counted > 0) & batch.valid
            found[name] = mean[kept].cpu().numpy(), batch.label[kept].cpu().numpy()
        yield found


def _thinned(rows: Rows, count: int) -> Rows:
    """Evenly spaced rows, `count` of them."""
    chosen = np.linspace(0, len(rows[1]) - 1, count).round().astype(np.int64)
    return rows[0][chosen], rows[1][chosen]
