"""Supervised training from a config, by the given split or by grouped folds."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import set_seed

from ...fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from ...fusion.classifier import Classifier
from ...fusion.spec import own_packages
from ...shards.errors import RequestError
from ...shards.index.whole_file import write_whole
from ...tasks.evaluation.score_summary import (
    chances_of,
    class_precisions,
    draw_figures,
    judge,
    split_line,
)
from ...tasks.evaluation.score_table import write_score_table
from ...tasks.evaluation.scores import Scores, join_folds, save_scores
from ...tasks.evaluation.validation_choices import ON_VALIDATION, OUT_OF_FOLD, Calibration, calibrate, chosen_rows
from ...tasks.finetuning.early_stopping import BEST, EarlyStopping
from ...tasks.metrics.chance import chance_warning, headline_figures
from ...tasks.metrics.classification import class_recalls
from ...tasks.metrics.significance import few_groups_note
from ...tasks.records import Cell, Figure, Result, Table, new_result, save_result
from ...tasks.report.examples import draw_examples
from ...tasks.splits.leak_check import warn_of_duplicates
from ...tasks.splits.splits import Split, groups_of, take
from ..jobs.building import application_of, clip_stream, config_splits, split_plan
from ..jobs.pace import seconds_per_step
from ..runs.folder import check_finished, run_folder
from ..runs.logbook import warn
from ..runs.metric_log import show_result
from ..runs.progress import track
from ..schema import FinetuneConfig
from ..training.checkpoint import steps_done
from ..training.device import make_accelerator, ranks
from ..training.set_up import open_parts
from .cross_fit import check_cross_fit, cross_fit_of, fit_gate
from .final_model import Figures, check_final, train_final
from .head_blending import WEIGHTS, head_weights
from .joint_training import check_joint, train_jointly
from .modality_votes import weigh_modalities
from .recipe import Recipe, set_up, supervised_objective, train_classifier


def _remedy(config: FinetuneConfig) -> str:
    """What may help a classifier that is not better than chance."""
    start = "label more clips" if config.encoder else "start from an encoder (encoder=RUN)"
    return (
        "train longer (train.steps or train.epochs), raise train.learning_rate or head_learning_rate, "
        f"{start}, or show more of each clip (data.seconds, data.stretch)"
    )


@dataclass(frozen=True)
class Finetuned:
    """`metrics` over all test clips, AUC and average precision as means over folds; `intervals` (95 %, by group);
    `chances`: figures of guessing; `scores`; the record; `calibration` of the final model, if there is one.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    chances: dict[str, float]
    scores: Scores
    result: Result
    calibration: Calibration | None = None


def finetune(config: FinetuneConfig, command: Sequence[str] = (), resume: bool = False) -> Finetuned:
    """Trains and scores a classifier per split, saved as RUN/encoder, or RUN/fold-N/encoder with folds.

    With `config.final` one more, RUN/final/encoder, is trained on the clips of all splits. Nothing is
    chosen on test clips. Raises `RequestError` if the config does not fit the shards (a missing label, split,
    positive class or encoder), or if `resume` finds folds that were finished with other settings.
    """
    recipe = set_up(config, command)
    config = recipe.config
    check_cross_fit(config)
    check_joint(config)
    index, positive = recipe.index, recipe.positive
    splits = config_splits(config.data, index, config.seed, recipe.strata)
    for split in splits:
        recipe.for_split(split)
    if config.final:
        check_final(recipe, splits)
    plan = split_plan(config.data, config.seed)
    run, folds = run_folder(config), plan.crossed or len(splits) > 1
    if ranks()[1] > 1:
        # The processes share the scoring even if nothing is left to train.
        make_accelerator(config.train.precision, config.train.hang_minutes)
    folders = [run / split.name if folds else run for split in splits]
    settings = recipe.settings | {"fingerprint": index.fingerprint}
    parts: list[tuple[Scores, Scores | None]] = []
    if folds and resume:
        for folder in folders:
            check_finished(folder, settings)
    with open_parts(run, settings, resume, config.train) if folds else nullcontext():
        with track(len(index.samples), "frames compared", show=ranks()[0] == 0) as advance:
            warn_of_duplicates(index, splits, config.data.group, Path(config.out), config.data.workers, advance)
        for split, folder in zip(splits, folders, strict=True):
            parts.append(_run_split(recipe, split, folder, resume))
            if folds and ranks()[0] == 0:
                print(split_line(split.name, parts[-1][0], recipe.classes, positive), flush=True)
    scores = join_folds([split.name for split in splits], [test for test, _ in parts])
    groups = groups_of(index, config.data.group)
    unit = dict(zip([sample.key for sample in index.samples], groups, strict=True)) if groups else {}
    units = [unit.get(key, key) for key in scores.keys]
    metrics, intervals = judge(scores, recipe.classes, positive, units)
    how = plan.describe(index)
    how += f", only fold {config.data.fold}" if config.data.fold is not None else ""
    drawn = "group" if groups else "clip"
    note = f"{len(scores.keys)} test clips, {how}; {recipe.request.segments} views averaged; 95 % interval by {drawn}"
    if positive is not None or scores.labels.ndim == 2:
        note += scores.divided.note
    chances = chances_of(scores, positive)
    rows: list[Any] = [
        [name, value, *intervals.get(name, (None, None)), chances.get(name)] for name, value in metrics.items()
    ]
    few = few_groups_note(units, tested=False)
    tables = [Table("Test clips", ["metric", "value", "low", "high", "chance"], rows, note + f".{few}" * bool(few))]
    watched = [(test, held) for test, held in parts if held is not None]
    durations = {sample.key: sample.duration for sample in index.samples}
    seconds = np.array([durations[key] for key in scores.keys])
    if watched:
        chosen = chosen_rows(watched, recipe.classes, positive, seconds, units)
        told = "chosen on validation clips of each split; mean over splits"
        tables.append(_chosen_table(ON_VALIDATION, chosen, chances, told))
    calibration = None
    if config.final:
        calibration = calibrate(scores, recipe.classes, positive)
        chosen = chosen_rows([(scores, scores)], recipe.classes, positive, seconds, units)
        told = f"fitted and measured on the {len(scores.keys)} test clips, none scored by a model that trained on it"
        tables.append(_chosen_table(OUT_OF_FOLD, chosen, chances, told))
    if positive is None:
        tables.append(_class_table(scores, recipe.classes))
    modalities = recipe.modalities
    figures: list[Figure] = [*draw_figures(scores, recipe.classes, positive, modalities)]
    if ranks()[0] == 0:
        figures.append(draw_examples(scores, index, recipe.classes, modalities, run / "results"))
    warnings = chance_warning(headline_figures(metrics, intervals, chances, scores.labels, positive), _remedy(config))
    title = f"Fine-tuning: {config.task}"
    result = new_result("finetune", title, " ".join(command), tables, figures, warnings)
    if ranks()[0] == 0:
        save_result(result, run)
        show_result(run, result, warn)
        save_scores(scores, units, recipe.classes, run / "results" / "scores.safetensors")
        names = [split.name for split, (test, _) in zip(splits, parts, strict=True) for _ in test.keys]
        grouped = [unit.get(key, "") for key in scores.keys]
        write_score_table(
            run / "results" / "scores.csv", scores, names, grouped, recipe.classes, positive, modalities
        )
    if calibration is not None:
        kind = "out of fold" if folds else "held out"
        train_final(recipe, splits, run, folders, Figures(metrics, note, calibration, kind), resume)
    return Finetuned(metrics, intervals, chances, scores, result, calibration)


def finetuning_pace(config: FinetuneConfig) -> tuple[float, int]:
    """Seconds per step of a fine-tuning by `config`, measured on its clips, and how many splits it has."""
    recipe = set_up(config, ())
    numbers, classifier = np.arange(len(recipe.index.samples)), recipe.classifier()
    stream = clip_stream(recipe.index, recipe.request, config.data, config.seed, Path(config.out), **recipe.told)
    fit = cross_fit_of(recipe, numbers)
    seconds = seconds_per_step(supervised_objective(recipe, classifier, numbers, fit=fit), stream)
    return seconds, max(recipe.config.data.folds or 1, 1)


def check_finetuning(config: FinetuneConfig) -> None:
    """Raises the errors that a fine-tuning by `config` raises before its first step. Writes nothing."""
    recipe = set_up(config, ())
    config, run = recipe.config, run_folder(recipe.config)
    check_cross_fit(config)
    check_joint(config)
    splits = config_splits(config.data, recipe.index, config.seed, recipe.strata)
    if config.final:
        check_final(recipe, splits)
    for split in splits:
        watched = recipe.watched(split)
        part = recipe.for_split(split).for_clips(watched.train)
        clip_stream(take(part.index, watched.train), part.request, config.data, config.seed, run, **part.told)
        if split is splits[0]:
            classifier = part.classifier()
            supervised_objective(part, classifier, watched.train)
            _stopping(part, classifier, watched, run, resume=False)


def _run_split(recipe: Recipe, split: Split, run: Path, resume: bool) -> tuple[Scores, Scores | None]:
    """Trains a classifier on the split and returns its scores of the test clips, and of the validation clips if they
    choose threshold and temperature.

    The classifier of a finished fold is loaded.
    """
    watched = recipe.watched(split)
    recipe = recipe.for_split(split).for_clips(watched.train)
    config = recipe.config
    if resume and (run / "encoder").is_dir() and run != run_folder(config):
        model = load_bundle(run / "encoder", own_packages(config.model, config.decision)).model
        assert isinstance(model, Classifier)
        return _score(recipe, model, watched)
    again = resume and (run / "config.yaml").is_file()
    weights = head_weights(recipe, watched, run) if config.aids.blending else None
    set_seed(config.seed)
    classifier = recipe.classifier()
    fit = cross_fit_of(recipe, watched.train)
    weigh_modalities(recipe, classifier, watched.train, split.name or "split")
    stopping = _stopping(recipe, classifier, watched, run, again)
    train_classifier(
        recipe,
        classifier,
        watched.train,
        run,
        stopping=stopping,
        head_weights=weights,
        fit=fit,
        held_out=watched.validation,
        resume=again,
    )
    fit_gate(recipe, classifier, fit, watched)
    train_jointly(recipe, classifier, watched.train, run, again)
    if ranks()[0] == 0:
        if weights:
            write_whole(run / WEIGHTS, (json.dumps(weights) + "\n").encode())
        _save(recipe, watched, run, classifier)
    return _score(recipe, classifier, watched)


def _stopping(recipe: Recipe, classifier: Classifier, split: Split, run: Path, resume: bool) -> EarlyStopping | None:
    config = recipe.config
    if not config.evaluate_every:
        if config.patience:
            raise RequestError("config key 'patience' counts scorings of validation clips: set evaluate_every too")
        return None
    if not config.hold_out:
        raise RequestError("config key 'evaluate_every' scores validation clips: set hold_out=true too")
    stopping = EarlyStopping(
        classifier,
        lambda: recipe.score(classifier, split.validation),
        config.patience,
        run / BEST,
        ranks()[0] == 0,
    )
    if resume:
        stopping.resume()
    return stopping


def _score(recipe: Recipe, classifier: Classifier, split: Split) -> tuple[Scores, Scores | None]:
    validation = recipe.score(classifier, split.validation) if recipe.config.hold_out else None
    return recipe.score(classifier, split.test), validation


def _save(recipe: Recipe, split: Split, run: Path, classifier: Classifier) -> None:
    config, classes = recipe.config, recipe.classes
    used = f" ({config.data.fraction:.0%} of them used)" if config.data.fraction < 1 else ""
    clips = f"{len(split.train)} clips{used}"
    provenance = {
        "trained": recipe.purpose,
        "data": f"{recipe.index.folder.name}: {clips}, tested on {len(split.test)} ({split.name})",
        "encoder": "pretrained without labels" if config.encoder else "from random weights",
        "steps": max(config.train.steps, steps_done(run)),
        "seed": config.seed,
        "command": " ".join(recipe.settings["command"]),
    }
    name = None if recipe.positive is None else classes[recipe.positive]
    application = application_of(recipe.request, recipe.index)
    bundle = Bundle(
        classifier, recipe.spec, recipe.request.segments, config.task, name, provenance, application=application
    )
    save_bundle(bundle, run / "encoder")


def _chosen_table(title: str, rows: Sequence[Sequence[Cell]], chances: dict[str, float], note: str) -> Table:
    """A table of chosen figures, each with its chance and its 95 % interval if it has them."""
    beside = [[*row[:2], chances.get(str(row[0]).partition(" ")[0]), *row[2:]] for row in rows]
    return Table(title, ["figure", "value", "chance", "low", "high"], beside, note)


def _class_table(scores: Scores, classes: Sequence[str]) -> Table:
    labels = scores.labels
    if labels.ndim == 2:
        values, counts = class_precisions(scores), labels.sum(axis=0)
        figure, note = "average precision", "average precision of each class; chance is its share of the clips"
        note += scores.divided.note
    else:
        values = class_recalls(scores.probabilities.argmax(axis=1), labels, len(classes))
        counts = np.bincount(labels, minlength=len(classes))
        figure, note = "recall", "share of each class's clips that are classified correctly"
        note += "; chance: guessing in proportion to the classes' clips"
    rows: list[list[Cell]] = [
        [name, value if np.isfinite(value) else None, int(count), int(count) / len(scores.keys)]
        for name, value, count in zip(classes, values.tolist(), counts, strict=True)
    ]
    return Table("Classes", ["class", figure, "clips", "chance"], rows, note)
