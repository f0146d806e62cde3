"""Frozen features: each clip of an index goes through an encoder once, and its views are averaged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...fusion.backbone import Backbone, Encoded
from ...shards.batch import Batch
from ...shards.clip_spec import ClipSpec
from ...shards.stream import ClipStream
from ...shards.transforms import Preparation


@dataclass
class Features:
    """Features of n clips. Names are `fused`, each modality, and `concat` (the modalities side by side)."""

    modalities: tuple[str, ...]
    values: dict[str, NDArray[np.float32]]
    """Features by name: (n, D), for `concat` (n, M D)."""
    present: dict[str, NDArray[np.bool_]]
    """Whether each clip has the modality (n,), by name."""
    weights: NDArray[np.float32]
    """Mean gate weights over the views (n, M), in the order of `modalities`."""
    keys: list[str]
    """Clip keys."""

    @classmethod
    def joined(
        cls,
        modalities: tuple[str, ...],
        values: dict[str, NDArray[np.float32]],
        present: dict[str, NDArray[np.bool_]],
        weights: NDArray[np.float32],
        keys: list[str],
    ) -> "Features":
        """Builds features from the values of `fused` and of each modality.

        Adds `concat`. `fused` and `concat` count as always present.
        """
        side_by_side = np.concatenate([values[name] for name in modalities], axis=1)
        everywhere = np.ones(len(keys), dtype=bool)
        return cls(
            modalities,
            values | {"concat": side_by_side},
            present | {"fused": everywhere, "concat": everywhere},
            weights,
            keys,
        )

    @classmethod
    def chained(cls, parts: Sequence["Features"]) -> "Features":
        """Concatenates the clips of all parts."""
        return cls(
            parts[0].modalities,
            {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
            {name: np.concatenate([part.present[name] for part in parts]) for name in parts[0].present},
            np.concatenate([part.weights for part in parts]),
            [key for part in parts for key in part.keys],
        )


@torch.no_grad()
def feature_batches(
    backbones: Sequence[Backbone],
    spec: ClipSpec,
    stream: ClipStream,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Iterator[list[Features]]:
    """Runs `stream.evaluate()` through every encoder in evaluation mode, without augmentation. Averages the views.

    Yields the features of each batch, one entry per encoder. Clips are decoded and prepared once for all of
    `backbones`, which must take the same input.

    - `progress(clips)`: called with the number of newly finished clips.
    """
    backbones = [backbone.to(device).eval() for backbone in backbones]
    preparation = Preparation(spec).to(device)
    for batch in stream.evaluate():
        batch = batch.to(device)
        streams = preparation(batch)
        for name in {name for backbone in backbones for name in backbone.modalities} - batch.present.keys():
            # The encoder may have a modality that no clip of these shards has.
            batch.present[name] = torch.zeros_like(batch.start, dtype=torch.bool)
        yield [_features(backbone, backbone(streams, batch.present, batch.start), batch) for backbone in backbones]
        if progress is not None:
            progress(int(batch.valid.sum()))


def extract_features(
    backbones: Sequence[Backbone],
    spec: ClipSpec,
    stream: ClipStream,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> list[Features]:
    """Returns the features of all clips, one entry per encoder. Arguments as for `feature_batches`."""
    batches = list(feature_batches(backbones, spec, stream, device, progress))
    return [Features.chained(parts) for parts in zip(*batches, strict=True)]


def _features(backbone: Backbone, encoded: Encoded, batch: Batch) -> Features:
    valid = batch.valid.cpu()

    def rows(values: Tensor) -> NDArray[Any]:
        return values.cpu()[valid].numpy()

    values = {"fused": rows(encoded.embedding.mean(dim=1).float())}
    for name in backbone.modalities:
        # Absent views are zero: average over the views that have the modality.
        views = batch.present[name].sum(dim=1, keepdim=True).clamp_min(1)
        values[name] = rows((encoded.features[name].sum(dim=1) / views).float())
    present = {name: rows(batch.present[name].any(dim=1)) for name in backbone.modalities}
    keys = [key for key, keep in zip(batch.key, valid.tolist(), strict=True) if keep]
    return Features.joined(backbone.modalities, values, present, rows(encoded.weights.mean(dim=1).float()), keys)
