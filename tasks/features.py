"""Frozen features: every clip of an index through an encoder once, its views averaged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fusion.backbone import Backbone, Encoded
from ..shards.batch import Batch
from ..shards.stream import ClipStream
from ..shards.transforms import ClipSpec, Preparation


@dataclass
class Features:
    """Features of n clips.

    `values`: (n, D) for `fused` and for each modality, (n, M D) for `concat`, the modalities side by side.
    `present` (n,) per name: whether the clip has the modality; `weights` (n, M): mean gate weights over the views,
    in the order of `modalities`; `keys`: clip keys.
    """

    modalities: tuple[str, ...]
    values: dict[str, NDArray[np.float32]]
    present: dict[str, NDArray[np.bool_]]
    weights: NDArray[np.float32]
    keys: list[str]

    @classmethod
    def joined(
        cls,
        modalities: tuple[str, ...],
        values: dict[str, NDArray[np.float32]],
        present: dict[str, NDArray[np.bool_]],
        weights: NDArray[np.float32],
        keys: list[str],
    ) -> "Features":
        """From the values of `fused` and of each modality: `concat` is made of them, and both are always present."""
        side_by_side = np.concatenate([values[name] for name in modalities], axis=1)
        everywhere = np.ones(len(keys), dtype=bool)
        return cls(
            modalities,
            values | {"concat": side_by_side},
            present | {"fused": everywhere, "concat": everywhere},
            weights,
            keys,
        )


class _Collected:
    """The rows of one encoder, batch by batch, until they are joined."""

    def __init__(self, modalities: tuple[str, ...]) -> None:
        self.modalities = modalities
        self.parts: dict[str, list[Tensor]] = {name: [] for name in ("fused", *modalities)}
        self.present: dict[str, list[Tensor]] = {name: [] for name in modalities}
        self.weights: list[Tensor] = []
        self.keys: list[str] = []

    def add(self, encoded: Encoded, batch: Batch) -> None:
        valid = batch.valid.cpu()
        self.parts["fused"].append(encoded.embedding.mean(dim=1).cpu()[valid])
        for name in self.modalities:
            # Zero where absent: only the views that have the modality count.
            views = batch.present[name].sum(dim=1, keepdim=True).clamp_min(1)
            self.parts[name].append((encoded.features[name].sum(dim=1) / views).cpu()[valid])
            self.present[name].append(batch.present[name].any(dim=1).cpu()[valid])
        self.weights.append(encoded.weights.mean(dim=1).cpu()[valid])
        self.keys += [key for key, keep in zip(batch.key, valid.tolist(), strict=True) if keep]

    def join(self) -> Features:
        values = {name: torch.cat(rows).float().numpy() for name, rows in self.parts.items()}
        masks = {name: torch.cat(rows).numpy() for name, rows in self.present.items()}
        weights = torch.cat(self.weights).float().numpy()
        return Features.joined(self.modalities, values, masks, weights, self.keys)


@torch.no_grad()
def extract_features(
    backbones: Sequence[Backbone],
    spec: ClipSpec,
    stream: ClipStream,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> list[Features]:
    """Runs `stream.evaluate()` through every encoder in evaluation mode, without augmentation, views averaged.

    Clips are decoded and prepared once for all of `backbones`, which must take the same input.
    """
    backbones = [backbone.to(device).eval() for backbone in backbones]
    collected = [_Collected(backbone.modalities) for backbone in backbones]
    preparation = Preparation(spec).to(device)
    for batch in stream.evaluate():
        batch = batch.to(device)
        streams = preparation(batch)
        for backbone, rows in zip(backbones, collected, strict=True):
            rows.add(backbone(streams, batch.present, batch.start), batch)
        if progress is not None:
            progress(int(batch.valid.sum()))
    return [rows.join() for rows in collected]
