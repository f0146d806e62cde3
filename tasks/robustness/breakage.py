"""One sensor broken on purpose: how the gate reacts, and what features and a classifier lose."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ...fusion.backbone import Backbone
from ...shards.clip_spec import ClipSpec
from ...shards.stream import ClipStream
from ...shards.transforms import Preparation
from ..features.extract import Features
from ..probes.linear_probe import fit_linear_probe
from ..splits.splits import Split
from .corruptions import degrade
from .encoded_clips import EncodedClips, encode_batch, join_clips


@dataclass(frozen=True)
class Breakage:
    """Which sensor is broken, and how."""

    modality: str
    """Modality of the sensor."""
    axis: str = "noise"
    """Kind of corruption, a key of `corruptions.AXES`."""
    level: float = 2.0
    """Level of the corruption."""
    seed: int = 0
    """Seed of its random draws."""


@dataclass(frozen=True)
class KeptRow:
    """Which test clips the probe of one feature classifies correctly."""

    feature: str
    clean: NDArray[np.bool_]
    """With all sensors intact (n,)."""
    broken: NDArray[np.bool_]
    """With the sensor broken (n,)."""


@torch.no_grad()
def encode_broken(
    backbone: Backbone, spec: ClipSpec, stream: ClipStream, breakage: Breakage, device: torch.device | str = "cpu"
) -> tuple[EncodedClips, EncodedClips]:
    """Returns the stream's clips encoded intact and with one sensor broken. Each clip is decoded once."""
    backbone, preparation = backbone.to(device).eval(), Preparation(spec).to(device)
    names, name = backbone.modalities, breakage.modality
    clean, altered = [], []
    for batch in stream.evaluate():
        clean.append(encode_batch(backbone, preparation, batch, names, device))
        values = degrade(batch, name, breakage.axis, breakage.level, spec, breakage.seed)
        altered.append(encode_batch(backbone, preparation, replace(batch, streams={name: values}), [name], device))
    whole = join_clips(clean, names)
    return whole, whole.with_parts_of(join_clips(altered, [name]), name)


def features_of(backbone: Backbone, clips: EncodedClips, keys: Sequence[str]) -> Features:
    """Returns features for a probe, averaged over views. Every clip must have every modality of `backbone`."""
    with torch.no_grad():
        encoded = clips.fused(backbone, backbone.modalities)
    values = {"fused": encoded.embedding.mean(dim=1).float().numpy()}
    values |= {name: clips.parts[name].features.mean(dim=1).float().numpy() for name in backbone.modalities}
    present = {name: clips.present[name].any(dim=1).numpy() for name in backbone.modalities}
    weights = encoded.weights.mean(dim=1).float().numpy()
    return Features.joined(backbone.modalities, values, present, weights, list(keys))


def probe_broken(
    clean: Features, broken: Features, labels: NDArray[np.int64], classes: int, split: Split
) -> list[KeptRow]:
    """Scores linear probes of `fused`, `concat` and every modality, fitted on clean training clips.

    - `labels` (n,): class numbers.
    """
    held = split.validation
    rows = []
    for name in ("fused", "concat", *clean.modalities):
        values, test = clean.values[name], split.test
        validation = (values[held], labels[held]) if len(held) else None
        probe = fit_linear_probe(values[split.train], labels[split.train], classes, validation=validation)
        right = [
            probe.scores(features.values[name][test]).argmax(axis=1) == labels[test] for features in (clean, broken)
        ]
        rows.append(KeptRow(name, *right))
    return rows
