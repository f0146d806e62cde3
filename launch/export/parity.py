"""The difference between an exported graph and its model, on noise and on real clips."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...fusion.bundle.bundle import Bundle
from ...fusion.bundle.graph import every_subset, random_windows, stored_form
from ...fusion.classifier import Classifier
from ...shards.batch import Batch
from ...shards.index.table import Index
from ...shards.stream import ClipStream
from ...shards.transforms import Preparation
from ..jobs.building import check_shards_fit, held_request, request_of
from .runtime import Arrays, Runner

CLIPS = 64


@dataclass(frozen=True)
class Windows:
    """Rows for a graph: `present` (B, M) bool, `streams` as stored, `labels` of the clips if they have any."""

    present: Tensor
    streams: dict[str, Tensor]
    labels: list[str] | None = None

    def arrays(self) -> Arrays:
        """The graph's inputs by name."""
        return {"present": self.present.numpy(), **{name: stream.numpy() for name, stream in self.streams.items()}}


def noise_windows(bundle: Bundle) -> Iterator[Windows]:
    """A batch of every subset of the modalities, the empty one included, then a batch of one row."""
    modalities = bundle.backbone.modalities
    present = every_subset(modalities)
    streams = random_windows(bundle.spec, modalities, len(present))
    yield Windows(present, streams)
    yield Windows(present[-1:], {name: stream[-1:] for name, stream in streams.items()})


def clip_windows(bundle: Bundle, index: Index, label: str | None = None, limit: int = CLIPS) -> Iterator[Windows]:
    """The central window of up to `limit` clips spread over the shards, with the modalities each has.

    Raises `RequestError` if the shards were packed differently from the model's.
    """
    check_shards_fit(bundle, index)
    places = np.linspace(0, len(index.samples) - 1, min(limit, len(index.samples))).round().astype(int)
    index = index.keep(index.samples[place].key for place in places)
    labels = dict(zip([sample.key for sample in index.samples], index.column(label), strict=True)) if label else None
    request = replace(held_request(request_of(bundle, 1), index), segments=1)
    for batch in ClipStream(index, request, 16).evaluate():
        yield windows_of(bundle, batch, [labels[key] for key in batch.key] if labels else None)


def windows_of(bundle: Bundle, batch: Batch, labels: list[str] | None = None) -> Windows:
    """A batch of single windows as rows; streams that no clip has are zeros."""
    rows, streams, present = len(batch), {}, []
    for name in bundle.backbone.modalities:
        shape, kind = stored_form(bundle.spec, name)
        stream = batch.streams.get(name)
        streams[name] = torch.zeros((rows, *shape), dtype=kind) if stream is None else stream[:, 0].contiguous()
        there = batch.present.get(name)
        present.append(torch.zeros(rows, dtype=torch.bool) if there is None else there[:, 0])
    return Windows(torch.stack(present, dim=1), streams, labels)


@torch.no_grad()
def eager_outputs(bundle: Bundle, windows: Windows, encoder_only: bool = False) -> list[Tensor]:
    """The model's outputs, computed as in training, in the order of a graph's outputs."""
    present = {name: windows.present[:, n : n + 1] for n, name in enumerate(bundle.backbone.modalities)}
    start = torch.zeros(len(windows.present), 1)
    streams = {name: stream.unsqueeze(1) for name, stream in windows.streams.items()}
    batch = Batch(streams, present, [""] * len(start), start)
    model = bundle.backbone if encoder_only else bundle.model
    found = model(Preparation(bundle.spec)(batch), present, start)
    encoded = found.encoded if isinstance(model, Classifier) else found
    scores = [model.probabilities(found.logits[:, 0])] if isinstance(model, Classifier) else []
    return [*scores, encoded.embedding[:, 0], encoded.weights[:, 0]]


def worst_difference(bundle: Bundle, run: Runner, batches: Iterator[Windows], encoder_only: bool = False) -> float:
    """The largest absolute difference over all outputs and batches; infinite if one is not a number."""
    worst = 0.0
    for windows in batches:
        for mine, theirs in zip(run(windows.arrays()), eager_outputs(bundle, windows, encoder_only), strict=True):
            difference = float(np.abs(mine - theirs.numpy()).max())
            worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst
