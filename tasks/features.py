"""Frozen features: every clip of an index through an encoder once, its views averaged."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..fusion.backbone import Backbone
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


@torch.no_grad()
def extract_features(
    backbone: Backbone,
    spec: ClipSpec,
    stream: ClipStream,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Features:
    """Runs `stream.evaluate()` through the encoder in evaluation mode, without augmentation, views averaged."""
    backbone = backbone.to(device).eval()
    preparation = Preparation(spec).to(device)
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in ("fused", *backbone.modalities)}
    present: dict[str, list[torch.Tensor]] = {name: [] for name in backbone.modalities}
    weights, keys = [], []
    for batch in stream.evaluate():
        batch = batch.to(device)
        encoded = backbone(preparation(batch), batch.present, batch.start)
        valid = batch.valid.cpu()
        parts["fused"].append(encoded.embedding.mean(dim=1).cpu()[valid])
        for name in backbone.modalities:
            # Zero where absent: only the views that have the modality count.
            views = batch.present[name].sum(dim=1, keepdim=True).clamp_min(1)
            parts[name].append((encoded.features[name].sum(dim=1) / views).cpu()[valid])
            present[name].append(batch.present[name].any(dim=1).cpu()[valid])
        weights.append(encoded.weights.mean(dim=1).cpu()[valid])
        keys += [key for key, keep in zip(batch.key, valid.tolist(), strict=True) if keep]
        if progress is not None:
            progress(int(valid.sum()))
    values = {name: torch.cat(rows).float().numpy() for name, rows in parts.items()}
    values["concat"] = np.concatenate([values[name] for name in backbone.modalities], axis=1)
    masks = {name: torch.cat(rows).numpy() for name, rows in present.items()}
    everywhere = np.ones(len(keys), dtype=bool)
    return Features(
        backbone.modalities,
        values,
        masks | {"fused": everywhere, "concat": everywhere},
        torch.cat(weights).float().numpy(),
        keys,
    )
