"""`probe`: an encoder's frozen features on labelled shards, beside the same encoder untrained."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import set_seed

from ..fusion.backbone import fresh_copy
from ..fusion.bundle import load_bundle, local_bundle
from ..shards.errors import choice_error
from ..shards.index import load_index
from ..shards.stream import ClipStream
from ..tasks.cache import cached_features
from ..tasks.label_curve import label_curves
from ..tasks.probe_tables import (
    class_retrieval_table,
    cross_modal_table,
    label_curve_figure,
    label_curve_table,
    probe_table,
)
from ..tasks.probing import SOLVERS, ProbeRow, probe_features
from ..tasks.results import Figure, Gates, Result, new_result
from ..tasks.retrieval_rows import class_rows, cross_modal_rows
from ..tasks.split_plan import SplitPlan, plan_splits
from ..tasks.splits import groups_of, keep_used, labelled
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
    """A bundle folder, the one in a run folder, or, of `hf://owner/name[@revision]`, the one in the hub's cache."""
    path = local_bundle(path)
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
    plan: SplitPlan | None = None,
    views: int | None = None,
    solver: str = "lbfgs",
    curve: bool = False,
    workers: int = 1,
    seed: int = 0,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Probed:
    """Linear probe, kNN and retrieval of every feature, trained encoder and untrained control on the same clips.

    `plan`: how the clips are divided; `curve`: also by share of the labels, and in few-shot episodes.
    """
    if solver not in SOLVERS:
        raise choice_error("solver of the linear probe", solver, SOLVERS)
    plan = plan or SplitPlan()
    bundle = load_bundle(find_bundle(encoder))
    index, _, _ = labelled(load_index(shards), label)
    check_shards_fit(bundle, index)
    index, splits = keep_used(index, plan_splits(index, label, plan))
    index, classes, labels = labelled(index, label)
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
    units = groups_of(index, plan.group) if plan.crossed and not plan.leaky else None
    rows, untrained = (
        probe_features(f, labels, len(classes), splits, units, solver=solver) for f in (features, fresh)
    )
    note = f"{request.segments} views averaged; {plan.describe()}; interval 95 %; kNN k 20, temperature 0.07"
    note += "; linear by SGD, the best of eight rates" if solver == "sgd" else ""
    tables = [probe_table(rows, untrained, note), class_retrieval_table(class_rows(features, labels, splits))]
    if len(features.modalities) > 1:
        tables.append(cross_modal_table(cross_modal_rows(features, splits)))
    names = bundle.backbone.modalities
    by_class = [features.weights[labels == number].mean(axis=0).tolist() for number in range(len(classes))]
    figures: list[Figure] = [Gates("Mean gate weight by class", list(names), classes, by_class)]
    if curve:
        curves = label_curves(features, labels, len(classes), splits, units, seed=seed)
        tables.append(label_curve_table(curves))
        figures.append(label_curve_figure(curves))
    result = new_result("probe", f"Probe of column '{label}'", command, tables, figures)
    means = dict(zip(names, features.weights.mean(axis=0).tolist(), strict=True))
    return Probed(rows, untrained, result, means)
