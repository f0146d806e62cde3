"""Supervised training from a config, by the given split or by grouped folds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import set_seed

from ..fusion.bundle import Bundle, load_bundle, save_bundle
from ..fusion.classifier import Classifier
from ..shards.errors import RequestError
from ..tasks.chosen import chosen_multilabel_rows, chosen_rows
from ..tasks.duplicates import warn_of_duplicates
from ..tasks.examples import draw_examples
from ..tasks.judging import draw_figures, judge
from ..tasks.metrics import average_precisions
from ..tasks.results import Cell, Figure, Result, Table, new_result, save_result
from ..tasks.scoring import Scores, join_scores, save_scores
from ..tasks.splits import Split, groups_of, hold_out
from ..tasks.stopping import BEST, EarlyStopping
from .blending import head_weights
from .building import application_of, config_splits, run_folder, split_plan
from .device import make_accelerator, ranks
from .logbook import warn
from .progress import track
from .recipe import Recipe, set_up, train_classifier
from .run_folder import open_run
from .schema import FinetuneConfig
from .tracking import show_result


@dataclass(frozen=True)
class Finetuned:
    """`metrics` over all test clips, pooled over folds; `intervals` (95 %, by group); `scores`; the record."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    scores: Scores
    result: Result


def finetune(config: FinetuneConfig, command: Sequence[str] = (), resume: bool = False) -> Finetuned:
    """Trains and scores a classifier per split; RUN/encoder holds it, or RUN/fold-N/encoder for each fold.

    The recipe is fixed beforehand: nothing is chosen on the test clips. Raises `RequestError` where the config does
    not suit the shards: a label, split, positive class or encoder that is not there.
    """
    recipe = set_up(config, command)
    index, positive = recipe.index, recipe.positive
    splits = config_splits(config.data, index, config.seed, recipe.strata)
    for split in splits:
        recipe.for_split(split)
    plan = split_plan(config.data, config.seed)
    run, folds = run_folder(config), plan.crossed or len(splits) > 1
    if ranks()[1] > 1:
        # Also where nothing is left to train, the processes share what is left to score.
        make_accelerator(config.train.precision, config.train.hang_minutes)
    if folds and ranks()[0] == 0:
        open_run(run, recipe.settings, resume)
    with track(len(index.samples), "frames compared", show=ranks()[0] == 0) as advance:
        warn_of_duplicates(index, splits, config.data.group, Path(config.out), config.data.workers, advance)
    parts = [_run_split(recipe, split, run / split.name if folds else run, resume) for split in splits]
    scores = join_scores([test for test, _ in parts])
    groups = groups_of(index, config.data.group)
    unit = dict(zip([sample.key for sample in index.samples], groups, strict=True)) if groups else {}
    units = [unit.get(key, key) for key in scores.keys]
    metrics, intervals = judge(scores, positive, units)
    how = plan.describe()
    how += f", only fold {config.data.fold}" if config.data.fold is not None else ""
    note = f"{len(scores.keys)} test clips, {how}; {recipe.request.segments} views averaged; 95 % interval by group"
    rows: list[Any] = [[name, value, *intervals.get(name, (None, None))] for name, value in metrics.items()]
    tables = [Table("Test clips", ["metric", "value", "low", "high"], rows, note)]
    watched = [(test, held) for test, held in parts if held is not None]
    if watched:
        seconds = {sample.key: sample.duration for sample in index.samples}
        if recipe.multilabel:
            chosen = chosen_multilabel_rows(watched, recipe.classes)
        else:
            chosen = chosen_rows(watched, positive, np.array([seconds[key] for key in scores.keys]))
        note = (
            "threshold and temperature were chosen on validation clips of each split, the mean over splits is shown"
        )
        tables.append(Table("Chosen on validation clips", ["figure", "value"], chosen, note))
    if recipe.multilabel:
        tables.append(_class_table(scores, recipe.classes))
    modalities = recipe.request.modalities
    figures: list[Figure] = [*draw_figures(scores, recipe.classes, positive, modalities)]
    if ranks()[0] == 0:
        figures.append(draw_examples(scores, index, recipe.classes, modalities, run / "results"))
    result = new_result("finetune", f"Fine-tuning: {config.task}", " ".join(command), tables, figures)
    if ranks()[0] == 0:
        save_result(result, run)
        show_result(run, result, warn)
        save_scores(scores, units, recipe.classes, run / "results" / "scores.safetensors")
    return Finetuned(metrics, intervals, scores, result)


def _run_split(recipe: Recipe, split: Split, run: Path, resume: bool) -> tuple[Scores, Scores | None]:
    """Scores of the split's test clips, and of validation clips where those choose something, under a classifier
    trained on its train clips; one of a finished fold is loaded."""
    watched = _watched(recipe, split) if recipe.config.hold_out else split
    recipe = recipe.for_split(split).for_clips(watched.train)
    config = recipe.config
    if resume and (run / "encoder").is_dir() and run != run_folder(config):
        model = load_bundle(run / "encoder").model
        assert isinstance(model, Classifier)
        return _score(recipe, model, watched)
    again = resume and (run / "config.yaml").is_file()
    weights = head_weights(recipe, watched, run) if config.aids.blending else None
    set_seed(config.seed)
    classifier = recipe.classifier()
    stopping = _stopping(recipe, classifier, watched, run, again)
    train_classifier(recipe, classifier, watched.train, run, stopping=stopping, head_weights=weights, resume=again)
    if ranks()[0] == 0:
        if weights:
            (run / "blending.json").write_text(json.dumps(weights) + "\n", encoding="utf-8")
        _save(recipe, watched, run, classifier)
    return _score(recipe, classifier, watched)


def _watched(recipe: Recipe, split: Split) -> Split:
    """The split with validation clips, which must hold what they are to choose by."""
    data, positive = recipe.config.data, recipe.positive
    watched = hold_out(split, recipe.index, recipe.strata, data.group, recipe.config.seed)
    if positive is not None and not (recipe.labels[watched.validation] == positive).any():
        raise RequestError(
            f"the {len(watched.validation)} validation clips of split '{split.name}' hold none of class "
            f"'{recipe.classes[positive]}' to choose a threshold by: give another seed=, or hold_out=false"
        )
    return watched


def _stopping(recipe: Recipe, classifier: Classifier, split: Split, run: Path, resume: bool) -> EarlyStopping | None:
    config = recipe.config
    if not config.evaluate_every:
        if config.patience:
            raise RequestError("config key 'patience' counts scorings of validation clips: give evaluate_every too")
        return None
    if not config.hold_out:
        raise RequestError("config key 'evaluate_every' scores validation clips: give hold_out=true too")
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
        "trained": f"to tell {_told_apart(recipe)}",
        "data": f"{recipe.index.folder.name}: {clips}, tested on {len(split.test)} ({split.name})",
        "encoder": "pretrained without labels" if config.encoder else "from random weights",
        "steps": config.train.steps,
        "seed": config.seed,
        "command": " ".join(recipe.settings["command"]),
    }
    name = None if recipe.positive is None else classes[recipe.positive]
    application = application_of(recipe.request, recipe.index)
    bundle = Bundle(
        classifier, recipe.spec, recipe.request.segments, config.task, name, provenance, application=application
    )
    save_bundle(bundle, run / "encoder")


def _told_apart(recipe: Recipe) -> str:
    classes = recipe.classes
    if recipe.multilabel:
        return f"which of {len(classes)} classes a clip has"
    return " from ".join(classes) if len(classes) == 2 else f"{len(classes)} classes"


def _class_table(scores: Scores, classes: Sequence[str]) -> Table:
    precisions, counts = average_precisions(scores.probabilities, scores.labels), scores.labels.sum(axis=0)
    rows: list[list[Cell]] = [
        [name, value, int(count), int(count) / len(scores.keys)]
        for name, value, count in zip(classes, precisions.tolist(), counts, strict=True)
    ]
    note = "average precision of each class; chance is its share of the clips"
    return Table("Classes", ["class", "average precision", "clips", "share"], rows, note)
