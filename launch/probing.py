"""`probe`: an encoder's frozen features on labelled shards, beside the same encoder untrained."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import set_seed

from ..fusion.backbone import fresh_copy
from ..fusion.bundle import load_bundle
from ..shards.errors import RequestError
from ..shards.index import load_index
from ..shards.stream import ClipStream
from ..tasks.cache import cached_features
from ..tasks.probing import ProbeRow, probe_features
from ..tasks.results import Gates, Result, Table, new_result
from ..tasks.splits import VALIDATION, folds_of, given_split, groups_of, labelled
from .building import check_shards_fit, request_of
from .device import leave_cores_to


@dataclass(frozen=True)
class Probed:
    """Rows of the encoder and of its `untrained` control, and the record of both."""

    rows: list[ProbeRow]
    untrained: list[ProbeRow]
    result: Result
    weights: dict[str, float]


def find_bundle(path: Path) -> Path:
    """A bundle folder, or the one in a run folder."""
    return path / "encoder" if (path / "encoder").is_dir() else path


def cache_folder(path: Path) -> Path | None:
    """RUN/features of the run a bundle lies in; none for an exported bundle, which is left as it is."""
    run = next((folder for folder in (path, path.parent) if (folder / "config.yaml").is_file()), None)
    return None if run is None else run / "features"


def probe(
    encoder: Path,
    shards: Path,
    *,
    label: str = "label",
    folds: int = 0,
    group: str = "group",
    train_split: str = "train",
    test_split: str = "test",
    views: int | None = None,
    workers: int = 1,
    seed: int = 0,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Probed:
    """Linear probe and kNN of every feature, trained encoder and untrained control on the same clips.

    By the column `split`, or by `folds` that keep a `group` together.
    """
    bundle = load_bundle(find_bundle(encoder))
    index, classes, labels = labelled(load_index(shards), label)
    check_shards_fit(bundle, index)
    if folds:
        splits = folds_of(index, label, folds, group, seed)
    elif "split" in index.columns:
        index = index.keep(
            s.key for s in index.samples if s.labels.get("split") in (train_split, VALIDATION, test_split)
        )
        splits = [given_split(index, train_split, test_split)]
        index, classes, labels = labelled(index, label)
    else:
        raise RequestError(f"'{shards}' has no column 'split': give --folds, and --group to keep its clips together")
    request = request_of(bundle, views)
    missing = [name for name in request.modalities if name not in index.modalities]
    if missing:
        request = replace(request, modalities=tuple(name for name in request.modalities if name in index.modalities))
    stream = ClipStream(index, request, 32, workers=workers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    done = 0

    def count(clips: int) -> None:
        nonlocal done
        done += clips
        if progress is not None:
            progress(done, len(index.samples))

    leave_cores_to(workers)
    set_seed(seed)
    encoders = [bundle.backbone, fresh_copy(bundle.backbone)]
    features, fresh = cached_features(encoders, bundle.spec, stream, cache_folder(encoder), device, count)
    units = groups_of(index, group) if folds else None
    rows, untrained = (probe_features(f, labels, len(classes), splits, units) for f in (features, fresh))
    names = bundle.backbone.modalities
    by_class = [features.weights[labels == number].mean(axis=0).tolist() for number in range(len(classes))]
    how = f"{folds} folds by '{group}'" if folds else f"trained on split '{train_split}', scored on '{test_split}'"
    note = f"{request.segments} views averaged; {how}; interval 95 %; kNN k 20, temperature 0.07"
    columns = ["feature", "linear", "low", "high", "kNN", "AUC", "clips", "untrained linear", "untrained kNN"]
    table = Table(
        "Frozen features",
        columns,
        [
            [row.feature, row.accuracy, row.low, row.high, row.knn, row.auc, row.clips, control.accuracy, control.knn]
            for row, control in zip(rows, untrained, strict=True)
        ],
        note,
    )
    gates = Gates("Mean gate weight by class", list(names), classes, by_class)
    result = new_result("probe", f"Probe of column '{label}'", command, [table], [gates])
    means = dict(zip(names, features.weights.mean(axis=0).tolist(), strict=True))
    return Probed(rows, untrained, result, means)
