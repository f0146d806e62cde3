"""A cache of frozen features, one file per encoder, shard set and views."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...fusion.backbone import Backbone, encoder_spec
from ...shards.clip_spec import ClipSpec
from ...shards.errors import DataError
from ...shards.index.table import Index
from ...shards.index.whole_file import whole_file
from ...shards.stream import ClipRequest, ClipStream
from ...ssl.gather import rank
from ..records import versions
from .across_processes import from_first, share_batches
from .extract import Features, feature_batches


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 digests of everything that features depend on."""

    encoder: str
    """Architecture and all weights."""
    shards: str
    """The bytes of the shards, and the clips in their order."""
    views: str
    """How clips are cut and prepared, and the package version."""

    @property
    def name(self) -> str:
        """Name of the feature file."""
        return f"{_digest(asdict(self))[:16]}.safetensors"

    @property
    def parts(self) -> str:
        """Name of the folder that holds single batches during extraction."""
        return f"{self.name}.parts"


def fingerprint(backbone: Backbone, spec: ClipSpec, index: Index, request: ClipRequest) -> Fingerprint:
    """Returns the fingerprint of the features of `backbone` for the clips of `index`.

    Labels are not included: a corrected label file keeps the features valid.

    - `request`: how clips are cut.
    - `spec`: how clips are prepared.
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
    """Returns the features of every encoder, from `folder` if they are stored there. Extracts and stores the others.

    All missing encoders share one pass over the clips, and several processes share its batches. Each batch is stored
    when it is done, so rerunning resumes an interrupted extraction.

    - `folder`: the cache. None: do not store.
    - `progress(clips)`: called with the number of newly finished clips.

    Raises `DataError` for a file that is damaged or has another fingerprint.
    """
    marks = [fingerprint(backbone, spec, stream.index, stream.request) for backbone in backbones]
    found = from_first(lambda: _kept(folder, marks))
    missing = {mark: backbone for mark, backbone in zip(marks, backbones, strict=True) if mark not in found}
    if not missing:
        if progress is not None:
            progress(len(stream.index.samples))
        return [found[mark] for mark in marks]
    keys = [sample.key for sample in stream.index.samples]
    batches = [keys[first : first + stream.batch_size] for first in range(0, len(keys), stream.batch_size)]
    parts = from_first(lambda: _kept_batches(folder, list(missing), batches))
    if progress is not None and parts:
        progress(sum(len(batches[number]) for number in parts))

    def extract(some: ClipStream) -> Iterator[list[Features]]:
        for batch in feature_batches(list(missing.values()), spec, some, device, progress):
            if folder is not None:
                for mark, features in zip(missing, batch, strict=True):
                    save_features(_part(folder, mark, features.keys), mark, features)
            yield batch

    left = [number for number in range(len(batches)) if number not in parts]
    parts |= zip(left, share_batches(stream, extract, left if parts else None), strict=True)
    for place, mark in enumerate(missing):
        found[mark] = Features.chained([parts[number][place] for number in range(len(batches))])
        if folder is not None and rank() == 0:
            save_features(folder / mark.name, mark, found[mark])
            shutil.rmtree(folder / mark.parts)
    return [found[mark] for mark in marks]


def _kept(folder: Path | None, marks: Sequence[Fingerprint]) -> dict[Fingerprint, Features]:
    if folder is None:
        return {}
    return {mark: load_features(folder / mark.name, mark) for mark in marks if (folder / mark.name).is_file()}


def _kept_batches(
    folder: Path | None, marks: Sequence[Fingerprint], batches: Sequence[list[str]]
) -> dict[int, list[Features]]:
    """Returns the batches that an interrupted extraction stored for all of `marks`, by number, one entry per mark."""
    if folder is None:
        return {}
    found = {}
    for number, keys in enumerate(batches):
        paths = [_part(folder, mark, keys) for mark in marks]
        if all(path.is_file() for path in paths):
            found[number] = [load_features(path, mark) for path, mark in zip(paths, marks, strict=True)]
    return found


def _part(folder: Path, mark: Fingerprint, keys: list[str]) -> Path:
    return folder / mark.parts / f"{_digest(keys)[:16]}.safetensors"


def save_features(path: Path, mark: Fingerprint, features: Features) -> None:
    """Writes features and their fingerprint atomically. `concat` is not stored: `load_features` builds it."""
    arrays = {f"values/{name}": values for name, values in features.values.items() if name != "concat"}
    arrays |= {f"present/{name}": features.present[name] for name in features.modalities}
    arrays["weights"] = features.weights
    facts = asdict(mark) | {"modalities": json.dumps(features.modalities), "keys": json.dumps(features.keys)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial, facts)


def load_features(path: Path, mark: Fingerprint) -> Features:
    """Reads features written by `save_features`.

    Raises `DataError` if the file is damaged or its fingerprint is not `mark`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            changed = [part for part, digest in asdict(mark).items() if facts.get(part) != digest]
            if changed:
                raise DataError(f"features '{path}' belong to different {' and '.join(changed)}: delete the file")
            modalities, keys = tuple(json.loads(facts["modalities"])), json.loads(facts["keys"])
            values = {name: file.get_tensor(f"values/{name}") for name in ("fused", *modalities)}
            present = {name: file.get_tensor(f"present/{name}") for name in modalities}
            weights = file.get_tensor("weights")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"features '{path}' are damaged ({error}): delete the file") from error
    return Features.joined(modalities, values, present, weights, keys)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
