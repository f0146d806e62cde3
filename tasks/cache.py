"""Frozen features kept beside a run: extracted once per encoder, shards and views, and never used for others."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..fusion.backbone import Backbone, encoder_spec
from ..shards.errors import DataError
from ..shards.index import Index
from ..shards.stream import ClipRequest, ClipStream
from ..shards.transforms import ClipSpec
from .features import Features, extract_features
from .results import versions


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of all that features depend on.

    `encoder`: architecture and every weight; `shards`: the bytes of the shards and which clips, in which order;
    `views`: what is cut from a clip and how it is prepared, and the version of the package that does it.
    """

    encoder: str
    shards: str
    views: str

    @property
    def name(self) -> str:
        """The file of these features."""
        return f"{_digest(asdict(self))[:16]}.safetensors"


def fingerprint(backbone: Backbone, spec: ClipSpec, index: Index, request: ClipRequest) -> Fingerprint:
    """The fingerprint of `backbone`'s features of the clips of `index`, cut by `request` and prepared by `spec`.

    Labels play no part: a corrected label file leaves the features as they are.
    """
    weights = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        weights.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        weights.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    model = asdict(backbone.spec) | {
        "modalities": backbone.modalities,
        "encoders": {name: asdict(encoder_spec(backbone.spec, name)) for name in backbone.modalities},
    }
    used = {sample.shard for sample in index.samples}
    shards = {shard.name: shard.sha256 for shard in index.shards if shard.name in used}
    clips = [(sample.key, sample.shard, sample.duration, sample.members) for sample in index.samples]
    return Fingerprint(
        _digest([model, weights.hexdigest()]),
        _digest([shards, clips]),
        _digest([asdict(request), asdict(spec), versions().get("modalgate")]),
    )


def cached_features(
    backbones: Sequence[Backbone],
    spec: ClipSpec,
    stream: ClipStream,
    folder: Path | None,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> list[Features]:
    """`extract_features` that reads from `folder` what lies there and writes to it what did not; none caches nothing.

    Encoders that are missing share one pass over the clips. Raises `DataError` for a file that is damaged or holds
    another encoder's, shards' or views' features.
    """
    if folder is None:
        return extract_features(backbones, spec, stream, device, progress)
    marks = [fingerprint(backbone, spec, stream.index, stream.request) for backbone in backbones]
    found = {mark: load_features(folder / mark.name, mark) for mark in marks if (folder / mark.name).is_file()}
    missing = [(backbone, mark) for backbone, mark in zip(backbones, marks, strict=True) if mark not in found]
    if missing:
        extracted = extract_features([backbone for backbone, _ in missing], spec, stream, device, progress)
        for (_, mark), features in zip(missing, extracted, strict=True):
            save_features(folder / mark.name, mark, features)
            found[mark] = features
    elif progress is not None:
        progress(len(stream.index.samples))
    return [found[mark] for mark in marks]


def save_features(path: Path, mark: Fingerprint, features: Features) -> None:
    """Writes features atomically, with their fingerprint; `concat` is joined again on reading."""
    arrays = {f"values/{name}": values for name, values in features.values.items() if name != "concat"}
    arrays |= {f"present/{name}": features.present[name] for name in features.modalities}
    arrays["weights"] = features.weights
    facts = asdict(mark) | {"modalities": json.dumps(features.modalities), "keys": json.dumps(features.keys)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial, facts)
    os.replace(partial, path)


def load_features(path: Path, mark: Fingerprint) -> Features:
    """Reads what `save_features` wrote; `DataError` where the file is damaged or its fingerprint is not `mark`."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            changed = [part for part, digest in asdict(mark).items() if facts.get(part) != digest]
            if changed:
                raise DataError(f"features '{path}' are of other {' and '.join(changed)}: delete the file")
            modalities, keys = tuple(json.loads(facts["modalities"])), json.loads(facts["keys"])
            values = {name: file.get_tensor(f"values/{name}") for name in ("fused", *modalities)}
            present = {name: file.get_tensor(f"present/{name}") for name in modalities}
            weights = file.get_tensor("weights")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"features '{path}' are damaged ({error}): delete the file") from error
    return Features.joined(modalities, values, present, weights, keys)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
