"""`probe`: frozen features of an encoder on labelled shards, compared with those of the untrained encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed

from ...fusion.backbone import fresh_copy
from ...shards.errors import RequestError, choice_error
from ...shards.index.labels import label_column
from ...shards.index.table import load_index
from ...shards.stream import ClipStream
from ...tasks.features.cache import cached_features
from ...tasks.metrics.chance import chance_warning, untrained_warning
from ...tasks.metrics.multilabel import labelled_clips
from ...tasks.metrics.significance import few_groups_note
from ...tasks.probes.label_curve import label_curves
from ...tasks.probes.multilabel_probe import MultilabelRow, probe_multilabel
from ...tasks.probes.probe_features import SOLVERS, ProbeRow, probe_features
from ...tasks.probes.probe_tables import (
    class_precision_table,
    class_retrieval_table,
    cross_modal_table,
    label_curve_figure,
    label_curve_table,
    multilabel_table,
    probe_table,
)
from ...tasks.probes.retrieval_rows import class_rows, cross_modal_rows
from ...tasks.records import Figure, Gates, Result, new_result
from ...tasks.splits.leak_check import warn_of_duplicates
from ...tasks.splits.split_plan import SplitPlan, default_plan, plan_splits, say
from ...tasks.splits.splits import groups_of, keep_used
from ..runs.bundles import cache_folder, measured_bundle
from ..runs.progress import track
from ..training.device import leave_cores_to, make_accelerator, ranks
from .building import check_shards_fit, held_request, request_of

# An interrupted extraction loses at most one batch.
BATCH_SIZE = 32


@dataclass(frozen=True)
class Probed:
    """Rows of the encoder and of its `untrained` control, the record of both, and the label `column`."""

    rows: list[ProbeRow] | list[MultilabelRow]
    untrained: list[ProbeRow] | list[MultilabelRow]
    result: Result
    weights: dict[str, float]
    column: str


def probe(
    encoder: Path,
    shards: Path | str | Sequence[str],
    *,
    label: str = "label",
    labels: Sequence[str] = (),
    multilabel: bool = False,
    plan: SplitPlan | None = None,
    views: int | None = None,
    solver: str = "lbfgs",
    curve: bool = False,
    cache: Path | None = None,
    workers: int = 1,
    seed: int = 0,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Probed:
    """Linear probe, kNN and retrieval of every feature, trained encoder and untrained control on the same clips.

    With `multilabel` a value of the column `label` names several classes, or the columns `labels` hold 0 and 1.
    Several processes (torchrun) share the extraction, and each fits the same probes. `plan`: how the clips are
    divided. `cache`: folder of stored features; default: RUN/features of the encoder's run. `curve`: also by share of
    the labels, and few-shot.
    """
    if solver not in SOLVERS:
        raise choice_error("solver of the linear probe", solver, SOLVERS)
    if multilabel and (curve or solver != "lbfgs"):
        raise RequestError("the multilabel probe has one solver and no curve: remove --solver and --curve")
    rank, world = ranks()
    if world > 1:
        make_accelerator("fp32")  # joins the processes
    shown = load_index(shards)
    bundle = measured_bundle(encoder, shown)
    chosen = label if labels else label_column(shown, label)
    say("" if chosen == label else f"the label column is '{chosen}': --label {chosen}")
    clips = labelled_clips(shown, chosen, labels, multilabel)
    check_shards_fit(bundle, clips.index)
    plan, line = default_plan(clips.index, clips.strata, plan or SplitPlan(None))
    index, splits = keep_used(clips.index, plan_splits(clips.index, clips.strata, plan))
    say(line)
    clips = labelled_clips(index, clips.column, multilabel=multilabel)
    index, kept = clips.index, cache or cache_folder(encoder)
    with track(len(index.samples), "frames compared", show=progress is not None and rank == 0) as advance:
        warn_of_duplicates(index, splits, plan.group, kept, workers, advance)
    request = held_request(request_of(bundle, views), index)
    stream = ClipStream(index, request, BATCH_SIZE, workers=workers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    done = 0

    def count(clips: int) -> None:
        # Each process counts its own share; all finish at about the same time.
        nonlocal done
        done = min(done + clips * world, len(index.samples))
        if progress is not None and rank == 0:
            progress(done, len(index.samples))

    leave_cores_to(workers)
    set_seed(seed)
    encoders = [bundle.backbone, fresh_copy(bundle.backbone)]
    features, fresh = cached_features(encoders, bundle.spec, stream, kept, device, count)
    units = groups_of(index, plan.group)
    note = f"{request.segments} views averaged; {plan.describe(index)}; interval 95 %; kNN k 20, temperature 0.07"
    tested = np.unique(np.concatenate([split.test for split in splits]))
    named = units or [sample.key for sample in index.samples]
    few = few_groups_note([named[number] for number in tested], tested=False)
    if multilabel:
        rows, untrained = (probe_multilabel(f, clips.labels, splits, units) for f in (features, fresh))
        tables = [multilabel_table(rows, untrained, note, few), class_precision_table(rows, clips)]
        members = [clips.labels[:, number] == 1 for number in range(len(clips.classes))]
    else:
        count_of = len(clips.classes)
        rows, untrained = (
            probe_features(f, clips.labels, count_of, splits, units, solver=solver) for f in (features, fresh)
        )
        note += "; linear probe by SGD, best of eight rates" if solver == "sgd" else ""
        tables = [probe_table(rows, untrained, note, few)]
        tables.append(class_retrieval_table(class_rows(features, clips.labels, splits)))
        members = [clips.labels == number for number in range(count_of)]
    if len(features.modalities) > 1:
        tables.append(cross_modal_table(cross_modal_rows(features, splits)))
    names = bundle.backbone.modalities
    by_class = [features.weights[rows_of].mean(axis=0).tolist() for rows_of in members]
    figures: list[Figure] = [Gates("Mean gate weight by class", list(names), clips.classes, by_class)]
    if curve:
        curves = label_curves(features, clips.labels, len(clips.classes), splits, units, seed=seed)
        tables.append(label_curve_table(curves))
        figures.append(label_curve_figure(curves))
    trained, fresh_figures = [row.figure() for row in rows], [row.figure() for row in untrained]
    remedy = "pretrain longer (train.steps) or on more clips, or probe another --label"
    warnings = [*chance_warning(trained, remedy), *untrained_warning(trained, fresh_figures)]
    result = new_result("probe", f"Probe of column '{clips.column}'", command, tables, figures, warnings)
    means = dict(zip(names, features.weights.mean(axis=0).tolist(), strict=True))
    return Probed(rows, untrained, result, means, clips.column)
