"""`study`: compares fusion mechanisms and single modalities over seeds and folds, in parallel and resumable."""

import csv
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...fusion.backbone import Backbone, encoder_spec, take_over
from ...fusion.blank_segment import blank_segment, check_windows
from ...fusion.cost import measure_cost
from ...fusion.mechanisms_by_name import FUSIONS, build_fusion, fusion_class
from ...fusion.own_classes import is_path
from ...shards.clip_spec import ClipSpec
from ...shards.errors import DataError, RequestError, choice_error
from ...shards.index.table import Index
from ...shards.index.whole_file import whole_file, write_whole
from ...shards.stream import ClipRequest
from ...shards.transforms import Preparation
from ...tasks.finetuning.balance.aids import AidsConfig
from ...tasks.finetuning.balance.alternation import check_alternation
from ...tasks.fusion_study.matched_size import matched_hidden
from ...tasks.fusion_study.study_cell import Cell
from ...tasks.fusion_study.study_summary import (
    References,
    RowCost,
    StudyRow,
    study_record,
    study_rows,
)
from ...tasks.fusion_study.study_tables import study_figures, study_tables
from ...tasks.metrics.chance import Figure, chance_warning, majority_share
from ...tasks.records import Result, new_result, save_result
from ...tasks.robustness.corruptions import AXES, alters
from ...tasks.splits.leak_check import warn_of_duplicates
from ...tasks.splits.splits import Split, given_split, groups_of, hold_out, labelled
from ..config.load import settings_of
from ..runs.bundles import split_bundle
from ..runs.closing_table import markdown_table
from ..runs.folder import run_folder, started_parts
from ..runs.progress import track
from ..schema import RowConfig, StudyConfig
from .adapting import adapt
from .building import (
    check_relearning,
    check_shards_fit,
    choose_folds,
    choose_label,
    clip_request,
    config_splits,
    present_clips,
    select_clips,
    split_plan,
)
from .study_cells import Work, store_features, train_expert, train_joint_row, train_row, with_fusion


@dataclass(frozen=True)
class Studied:
    """The rows in order, the single modalities they are compared with, and the record."""

    rows: list[StudyRow]
    references: References
    result: Result


@dataclass(frozen=True)
class _Resolved:
    """A study ready to run: its resolved config, its clips and class names, what to cut from each clip, the class
    number of the AUC, the rows, and each fold's split with the clips that train its encoders.
    """

    config: StudyConfig
    index: Index
    classes: list[str]
    request: ClipRequest
    positive: int | None
    rows: dict[str, RowConfig]
    divided: list[tuple[Split, Any]]


def check_study(config: StudyConfig) -> None:
    """Raises what a study by `config` raises before its first step; nothing is written."""
    _resolved(config, ())


def _resolved(config: StudyConfig, command: Sequence[str]) -> _Resolved:
    data = choose_label(config.data, present_clips(config.data))
    index, classes, _ = labelled(select_clips(data), data.label)
    config = replace(config, data=choose_folds(data, index, data.label, config.seed))
    config = adapt(config, index, command)
    request = clip_request(config.data, index)
    if len(request.modalities) < 2:
        raise RequestError(
            f"a study compares fusions and needs two or more modalities: of '{index.folder}', which has "
            f"{', '.join(index.modalities)}, only {', '.join(request.modalities)} is used"
        )
    positive = _positive(config, classes)
    rows = config.rows or {name: RowConfig(name) for name in FUSIONS}
    for name, row in rows.items():
        _check_row(name, row, request.modalities, classes)
        if row.aids.relearning:
            check_relearning(config.experts, "experts")
    if config.taught_noise and not config.noise:
        raise RequestError("taught_noise needs noise levels: set noise=[0.5,1.0], for example")
    for axis in config.held_out:
        if not any(alters(axis, name) for name in request.modalities if axis in AXES):
            raise choice_error(
                "axis of held_out", axis, [a for a in AXES if any(alters(a, n) for n in request.modalities)]
            )
    for name in request.modalities:
        model = replace(config.model, fusion="static", fusion_arguments={})
        check_windows(Backbone((name,), model), ClipSpec.of(index, request))
    divided = _splits(config, index)
    if config.pretrained:
        for split, _ in divided:
            _check_pretrained(config, split, request.modalities, index)
    return _Resolved(config, index, classes, request, positive, rows, divided)


def study(config: StudyConfig, command: Sequence[str] = (), resume: bool = False) -> Studied:
    """Trains and scores every row with every seed on every fold; the tables are in RUN/study.md, .csv and .json.

    With `resume`, finished parts in RUN are kept. Raises `RequestError` if the config does not fit the shards.
    """
    resolved = _resolved(config, command)
    config, index, classes, request = resolved.config, resolved.index, resolved.classes, resolved.request
    positive, rows, divided = resolved.positive, resolved.rows, resolved.divided
    run = run_folder(config)
    with started_parts(run, settings_of(config, command) | {"fingerprint": index.fingerprint}, resume):
        jobs = config.jobs or len(os.sched_getaffinity(0))
        # Each on one thread: sums round the same however many run in parallel.
        one = {"threads": 1}
        config = replace(config, experts=replace(config.experts, **one), fusion=replace(config.fusion, **one))
        work = []
        with track(len(index.samples), "frames compared") as advance:
            splits = [split for split, _ in divided]
            warn_of_duplicates(index, splits, config.data.group, Path(config.out), config.data.workers, advance)
        for fold, (split, experts) in enumerate(divided):
            for seed in range(config.seed, config.seed + config.seeds):
                item = Work(config, run, index, classes, request, fold, split, experts, seed, positive)
                work.append(item)
        singles = {name: RowConfig("static") for name in request.modalities}
        experts = [(train_expert, (item, name)) for item in work for name in request.modalities]
        trained = [(train_row, (item, name, row, (name,))) for item in work for name, row in singles.items()]
        sized = {name: _sized(config, row, request.modalities) for name, row in rows.items()}
        for name, (row, used) in sized.items():
            if row.joint:
                trained += [(train_joint_row, (item, name, row)) for item in work]
            else:
                trained += [(train_row, (item, name, row, used)) for item in work]
        _run_all("experts", experts, jobs)
        stored = [
            (store_features, ([item for item in work if item.fold == fold], part))
            for fold in dict.fromkeys(item.fold for item in work)
            for part in ("test", "train", "validation")
        ]
        _run_all("features", stored, jobs)
        _run_all("rows", trained, jobs)
        cells = [_read_cell(item, name) for name in (*singles, *rows) for item in work]
    spec = ClipSpec.of(index, request)
    costs = {name: _cost(config, row, (name,), spec) for name, row in singles.items()}
    costs |= {name: _cost(config, row, used, spec) for name, (row, used) in sized.items()}
    groups = groups_of(index, config.data.group) or [sample.key for sample in index.samples]
    units = dict(zip([sample.key for sample in index.samples], groups, strict=True))
    done, references = study_rows(cells, list(singles), units, costs, work[0].metric())
    folds = len(work) // config.seeds
    note = (
        f"{len({cell.keys[i] for cell in cells for i in range(len(cell.keys))})} test clips, "
        f"{folds} fold{'s' if folds != 1 else ''} x {config.seeds} seed{'s' if config.seeds != 1 else ''}; "
        "encoders trained separately, then frozen"
    )
    tables = study_tables(done, references, config.metric, note)
    figures = list(study_figures(done, config.metric))
    warnings = _warnings(done, config, index, work)
    result = new_result("study", "Fusion study", " ".join(command), tables, figures, warnings)  # pyright: ignore
    save_result(result, run)
    _write_files(run, result, study_record(done, references))
    return Studied(done, references, result)


def _warnings(rows: Sequence[StudyRow], config: StudyConfig, index: Index, work: Sequence[Work]) -> list[str]:
    """A warning about rows that are no better than chance on the test clips."""
    numbers = sorted({number for item in work for number in item.split.test.tolist()})
    labels = np.array(index.column(config.data.label))[numbers]
    chance = majority_share(labels) if config.metric == "accuracy" else 0.5
    figures = [Figure(row.name, row.value.value, row.value.low, row.value.high, chance) for row in rows]
    return chance_warning(figures, "train the experts longer (experts.steps), then the rows (fusion.steps)")


def _check_row(name: str, row: RowConfig, modalities: tuple[str, ...], classes: list[str]) -> None:
    if row.fusion not in FUSIONS and not is_path(row.fusion):
        raise choice_error(f"fusion of row '{name}'", row.fusion, FUSIONS)
    if name in modalities:
        raise RequestError(f"row '{name}' has the name of a modality, which already has a row: choose another name")
    if "/" in name or name.startswith("."):
        raise RequestError(
            f"row '{name}' becomes a file name: give a name without '/' and without a dot at the start"
        )
    if row.fusion == "weighted_mean":
        raise RequestError(f"row '{name}': fusion weighted_mean works only in fine-tuning: give mean")
    if row.fusion == "reliability" and row.joint:
        raise RequestError(
            f"row '{name}': fusion reliability is fitted to scores of experts that train apart: remove joint=true"
        )
    for aid in ("distillation", "alternation", "relearning"):
        if getattr(row.aids, aid) and not row.joint:
            raise RequestError(f"row '{name}': aids.{aid} trains encoders: set joint=true in the row")
    if row.alone is not None:
        if row.alone not in modalities:
            raise choice_error(f"modality 'alone' of row '{name}'", row.alone, modalities)
        if row.joint or row.aids != AidsConfig():
            raise RequestError(
                f"row '{name}': alone trains one modality on stored features: remove joint and aids from the row"
            )
    decision = fusion_class(row.fusion).level == "decision"
    built = build_fusion(row.fusion, modalities, len(classes) if decision else 8, row.arguments)
    if row.aids.alternation:
        check_alternation(row.aids, built if decision else None, "fusion")


def _sized(config: StudyConfig, row: RowConfig, modalities: tuple[str, ...]) -> tuple[RowConfig, tuple[str, ...]]:
    """What a row trains and the modalities that it uses: for a control of size, one modality with a hidden layer."""
    if row.alone is None:
        return row, modalities
    used = (row.alone,)
    hidden = matched_hidden(
        _real_backbone(config, row, modalities), lambda width: _real_backbone(config, _hidden_layer(width), used)
    )
    return _hidden_layer(hidden), used


def _hidden_layer(width: int) -> RowConfig:
    return RowConfig("concat", {"hidden": width})


def _check_pretrained(config: StudyConfig, split: Split, modalities: tuple[str, ...], index: Index) -> None:
    bundle = split_bundle(Path(config.pretrained or ""), index, split)
    check_shards_fit(bundle, index)
    for name in modalities:
        model = replace(config.model, fusion="static", fusion_arguments={})
        take_over(Backbone((name,), model), name, bundle.backbone)


def _positive(config: StudyConfig, classes: list[str]) -> int | None:
    if config.metric != "auc":
        return None
    if len(classes) != 2 or config.positive not in classes:
        raise RequestError(f"metric auc needs two classes, and 'positive' must be one of {', '.join(classes)}")
    return classes.index(config.positive)


def _splits(config: StudyConfig, index: Index) -> list[tuple[Split, Any]]:
    """Each fold's split with validation clips, and the clips that train its encoders."""
    data = config.data
    splits = config_splits(data, index, config.seed)
    group = config.validation_group or data.group
    if config.validation_group is not None and group not in index.columns:
        raise choice_error("column of validation_group", group, index.columns)
    splits = [hold_out(split, index, data.label, group, config.seed) for split in splits]
    if config.expert_split is None:
        return [(split, split.train) for split in splits]
    if split_plan(data, config.seed).crossed:
        raise RequestError("expert_split needs the column 'split' and does not work with folds")
    return [(split, given_split(index, config.expert_split).train) for split in splits]


def _run_errand(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Does one piece of work in a process of a pool; an interruption ends the process.

    Otherwise the pool would start the next piece in that process and wait for it.
    """
    try:
        function(*arguments)
    except KeyboardInterrupt:
        os._exit(130)


def _run_all(label: str, errands: Sequence[tuple[Callable[..., None], tuple[Any, ...]]], jobs: int) -> None:
    """Runs every errand in one of `jobs` processes; the first failure ends all."""
    with (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
        track(len(errands), label) as advance,
    ):
        futures = [pool.submit(_run_errand, function, arguments) for function, arguments in errands]
        try:
            for future in as_completed(futures):
                future.result()
                advance(1)
        except BaseException:
            # Running jobs could take minutes to finish.
            running = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _read_cell(work: Work, name: str) -> Cell:
    path = work.folder / "rows" / f"{name}.json"
    try:
        return Cell(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"'{path}' is damaged ({error}): delete it and run with --resume") from error


def _real_backbone(config: StudyConfig, row: RowConfig, modalities: tuple[str, ...]) -> Backbone:
    """The backbone of a row with its encoders, to count and time it."""
    encoders = {name: encoder_spec(config.model, name).untrained() for name in modalities}
    return Backbone(modalities, replace(with_fusion(config.model, row), encoders=encoders))


def _cost(config: StudyConfig, row: RowConfig, modalities: tuple[str, ...], spec: ClipSpec) -> RowCost:
    """Parameters and multiply-adds, and the time on one thread over 8 blank segments, median of 5 passes."""
    backbone = _real_backbone(config, row, modalities).eval()
    whole = measure_cost(backbone, spec)[-1]
    batch = blank_segment(modalities, spec)
    streams = {name: stream.expand(8, *stream.shape[1:]) for name, stream in Preparation(spec)(batch).items()}
    present = {name: mask.expand(8, 1) for name, mask in batch.present.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    with torch.no_grad():
        for _ in range(6):
            began = time.perf_counter()
            backbone(streams, present, batch.start.expand(8, 1))
            times.append((time.perf_counter() - began) / 8 * 1000)
    torch.set_num_threads(threads)
    return RowCost(whole.parameters, whole.multiply_adds, statistics.median(times[1:]))


def _write_files(run: Path, result: Result, record: dict[str, Any]) -> None:
    """Writes the tables to RUN/study.md and study.csv, and all figures to study.json."""
    text = "\n\n".join(markdown_table(table) for table in result.tables)
    write_whole(run / "study.md", f"# {result.title}\n\n    {result.command}\n\n{text}\n".encode())
    with whole_file(run / "study.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for table in result.tables:
            writer.writerows([[f"# {table.title}"], table.columns, *table.rows])
    write_whole(run / "study.json", (json.dumps(record, indent=1) + "\n").encode())
