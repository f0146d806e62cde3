"""Supervised training from a config, by the given split or by grouped folds."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed

from ..fusion.backbone import Backbone
from ..fusion.bundle import Bundle, load_bundle, save_bundle
from ..fusion.classifier import Classifier
from ..shards.errors import RequestError, choice_error
from ..shards.index import Index, load_index
from ..shards.transforms import ClipSpec
from ..tasks.metrics import action_metrics, bootstrap_interval, violence_metrics
from ..tasks.results import Confusion, Curves, Gates, Result, Table, new_result, save_result
from ..tasks.scoring import Scores, score_clips
from ..tasks.splits import Split, folds_of, given_split, groups_of, labelled, take
from ..tasks.supervised import SupervisedObjective, balanced_weights
from .building import check_shards_fit, clip_request, clip_spec, clip_stream, request_of, run_folder
from .config import settings_of
from .device import ranks
from .run_folder import open_run
from .schema import FinetuneConfig
from .train import train


@dataclass
class Finetuned:
    """`metrics` over all test clips, pooled over folds; `intervals` (95 %, by group); `scores`; `classes`."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    scores: Scores
    classes: list[str]
    modalities: tuple[str, ...]
    result: Result


def finetune(config: FinetuneConfig, command: Sequence[str] = (), resume: bool = False) -> Finetuned:
    """Trains and scores a classifier per split; RUN/encoder holds it, or RUN/fold-N/encoder for each fold.

    The recipe is fixed beforehand: nothing is chosen on the test clips. Raises `RequestError` where the config does
    not suit the shards: a label, split, positive class or encoder that is not there.
    """
    index, classes, labels = labelled(load_index(config.data.shards), config.data.label)
    positive = _positive(config, classes)
    groups = groups_of(index, config.data.group)
    folds = bool(config.data.folds)
    if folds:
        splits = folds_of(index, config.data.label, config.data.folds, config.data.group, config.seed)
        if config.data.fold is not None:
            if config.data.fold >= len(splits):
                raise RequestError(
                    f"config key 'data.fold': {config.data.fold} of {len(splits)} folds (they count from 0)"
                )
            splits = [splits[config.data.fold]]
    else:
        splits = [given_split(index, config.data.split or "train", config.data.test_split)]
    run = run_folder(config)
    settings = settings_of(config, command)
    start = load_bundle(config.encoder) if config.encoder else None
    if start is not None:
        check_shards_fit(start, index)
    if folds and ranks()[0] == 0:
        open_run(run, settings, resume)
    parts = []
    for split in splits:
        folder = run / split.name if folds else run
        done = folds and resume and (folder / "encoder").is_dir()
        again = resume and (folder / "config.yaml").is_file()
        parts.append(
            _train_split(config, settings, index, labels, classes, split, folder, start, positive, again, done)
        )
    scores = Scores(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [key for part in parts for key in part.keys],
    )
    modalities = start.backbone.modalities if start else clip_request(config.data, index).modalities
    group_of = dict(zip([s.key for s in index.samples], groups, strict=True)) if groups else None
    units = [group_of[key] if group_of else key for key in scores.keys]
    metrics, intervals = judge(scores, classes, positive, units)
    result = _result(config, command, scores, classes, positive, metrics, intervals, modalities)
    if ranks()[0] == 0:
        save_result(result, run)
    return Finetuned(metrics, intervals, scores, classes, modalities, result)


def judge(
    scores: Scores, classes: Sequence[str], positive: int | None, units: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Metrics of the task and, for the headline ones, 95 % intervals by bootstrap over `units`."""

    def measure(rows: Any) -> dict[str, float]:
        if positive is None:
            return action_metrics(scores.probabilities[rows], scores.labels[rows])
        return violence_metrics(scores.probabilities[rows, positive], (scores.labels[rows] == positive).astype(int))

    metrics = measure(slice(None))
    headline = ["accuracy", "auc"] if positive is not None else [next(iter(metrics))]

    def one(name: str) -> Callable[[Any], float]:
        return lambda rows: measure(rows)[name]

    return metrics, {name: bootstrap_interval(one(name), units, draws=500) for name in headline if name in metrics}


def _positive(config: FinetuneConfig, classes: list[str]) -> int | None:
    if config.task != "violence":
        return None
    if config.positive is None:
        raise RequestError(f"config key 'positive' is not given: which of {', '.join(classes)} means violence?")
    if config.positive not in classes:
        raise choice_error("class for 'positive'", config.positive, classes)
    if len(classes) != 2:
        raise RequestError(f"violence is one of two classes, column '{config.data.label}' has {len(classes)}")
    return classes.index(config.positive)


def _train_split(
    config: FinetuneConfig,
    settings: dict[str, Any],
    index: Index,
    labels: Any,
    classes: list[str],
    split: Split,
    run: Path,
    start: Bundle | None,
    positive: int | None,
    resume: bool,
    done: bool,
) -> Scores:
    set_seed(config.seed)
    if start is not None:
        request, spec, backbone = request_of(start, config.data.segments), start.spec, copy.deepcopy(start.backbone)
    else:
        request = clip_request(config.data, index)
        spec = clip_spec(request, index)
        backbone = Backbone(request.modalities, _model(config))
    names = {"label": config.data.label, "classes": classes}
    test = clip_stream(take(index, split.test), request, config.data, config.seed, **names)
    if done:
        model = load_bundle(run / "encoder").model
        assert isinstance(model, Classifier)
        return score_clips(model, spec, test)
    stream = clip_stream(take(index, split.train), request, config.data, config.seed, **names)
    classifier = Classifier(backbone, classes, config.dropout, unimodal=config.unimodal_weight > 0)
    weights = balanced_weights(labels[split.train].tolist(), len(classes)) if config.balanced else None
    objective = SupervisedObjective(classifier, spec, config.augment, config.unimodal_weight, weights)
    heads = [*classifier.head.parameters(), *classifier.unimodal.parameters()]
    train(
        objective,
        stream,
        config.train,
        run,
        seed=config.seed,
        parameter_groups=[
            {"params": list(backbone.parameters()), "scale": config.encoder_learning_rate},
            {"params": heads, "scale": config.head_learning_rate},
        ],
        resume=resume,
        tracker_mode=config.wandb,
        settings=settings,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scores = score_clips(classifier, spec, test, device)
    if ranks()[0] == 0:
        _save(config, settings, classifier, spec, request.segments, index, split, classes, positive, run)
    return scores


def _model(config: FinetuneConfig) -> Any:
    if config.model is None:
        raise RequestError(
            "nothing to train: give 'encoder' (a bundle to start from) or 'model' (from random weights)"
        )
    return config.model


def _save(
    config: FinetuneConfig,
    settings: dict[str, Any],
    classifier: Classifier,
    spec: ClipSpec,
    segments: int,
    index: Index,
    split: Split,
    classes: list[str],
    positive: int | None,
    run: Path,
) -> None:
    name = None if positive is None else classes[positive]
    provenance = {
        "trained": f"to tell {' from '.join(classes) if len(classes) == 2 else f'{len(classes)} classes'}",
        "data": f"{index.folder.name}: {len(split.train)} clips, tested on {len(split.test)} others ({split.name})",
        "encoder": "pretrained without labels" if config.encoder else "from random weights",
        "steps": config.train.steps,
        "seed": config.seed,
        "command": " ".join(settings["command"]),
    }
    save_bundle(Bundle(classifier, spec, segments, config.task, name, provenance), run / "encoder")


def _result(
    config: FinetuneConfig,
    command: Sequence[str],
    scores: Scores,
    classes: list[str],
    positive: int | None,
    metrics: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    modalities: tuple[str, ...],
) -> Result:
    how = (
        f"{config.data.folds} folds by '{config.data.group}'"
        if config.data.folds
        else f"split '{config.data.test_split}'"
    )
    if config.data.folds and config.data.fold is not None:
        how = f"fold {config.data.fold} of {how}"
    rows = [[name, value, *intervals.get(name, (None, None))] for name, value in metrics.items()]
    note = f"{len(scores.keys)} test clips, {how}; {config.data.segments} views averaged; interval by group, 95 %"
    guessed = scores.probabilities.argmax(axis=1)
    matrix = np.zeros((len(classes), len(classes)), int)
    np.add.at(matrix, (scores.labels, guessed), 1)
    figures: list[Any] = [Confusion("Confusion (rows: truth)", classes, matrix.tolist())]
    seen = [number for number in range(len(classes)) if (scores.labels == number).any()]
    if positive is not None and len(seen) == 2:
        figures.append(roc_curve_of(scores.probabilities[:, positive], scores.labels == positive))
    means = [scores.weights[scores.labels == number].mean(axis=0).tolist() for number in seen]
    figures.append(Gates("Mean gate weight by class", list(modalities), [classes[n] for n in seen], means))
    table = Table("Test clips", ["metric", "value", "low", "high"], rows, note)
    return new_result("finetune", f"Fine-tuning: {config.task}", " ".join(command), [table], figures)


def roc_curve_of(scores: Any, positive: Any) -> Curves:
    """The ROC curve as a figure."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(positive, scores)
    points = list(zip(false.tolist(), true.tolist(), strict=True))
    return Curves("ROC", "false alarms", "recall", {"fused": points}, diagonal=True)
