"""Supervised training from a config, by the given split or by grouped folds."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray

from ..fusion.backbone import Backbone
from ..fusion.bundle import Bundle, load_bundle, save_bundle
from ..fusion.classifier import Classifier
from ..shards.errors import RequestError, choice_error
from ..shards.index import Index
from ..shards.stream import ClipRequest, ClipStream
from ..shards.transforms import ClipSpec
from ..tasks.judging import draw_figures, join_scores, judge
from ..tasks.results import Result, Table, new_result, save_result
from ..tasks.scoring import Scores, score_clips
from ..tasks.splits import Split, groups_of, labelled, take
from ..tasks.supervised import SupervisedObjective, balanced_weights
from .building import (
    check_shards_fit,
    clip_request,
    clip_spec,
    clip_stream,
    config_splits,
    request_of,
    run_folder,
    select_clips,
    split_plan,
)
from .config import settings_of
from .device import ranks
from .run_folder import open_run
from .schema import FinetuneConfig
from .train import train


@dataclass(frozen=True)
class Finetuned:
    """`metrics` over all test clips, pooled over folds; `intervals` (95 %, by group); `scores`; the record."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    scores: Scores
    result: Result


@dataclass(frozen=True)
class _Setup:
    """What all splits of one run share. `start` is the pretrained bundle, `positive` the violent class's number."""

    config: FinetuneConfig
    settings: dict[str, Any]
    index: Index
    classes: list[str]
    labels: NDArray[np.int64]
    positive: int | None
    start: Bundle | None
    request: ClipRequest
    spec: ClipSpec


def finetune(config: FinetuneConfig, command: Sequence[str] = (), resume: bool = False) -> Finetuned:
    """Trains and scores a classifier per split; RUN/encoder holds it, or RUN/fold-N/encoder for each fold.

    The recipe is fixed beforehand: nothing is chosen on the test clips. Raises `RequestError` where the config does
    not suit the shards: a label, split, positive class or encoder that is not there.
    """
    setup = _set_up(config, command)
    splits = config_splits(config.data, setup.index, config.seed)
    plan = split_plan(config.data, config.seed)
    run, folds = run_folder(config), plan.crossed or len(splits) > 1
    if folds and ranks()[0] == 0:
        open_run(run, setup.settings, resume)
    scores = join_scores([_run_split(setup, split, run / split.name if folds else run, resume) for split in splits])
    groups = groups_of(setup.index, config.data.group)
    unit = dict(zip([sample.key for sample in setup.index.samples], groups, strict=True)) if groups else {}
    metrics, intervals = judge(scores, setup.positive, [unit.get(key, key) for key in scores.keys])
    how = plan.describe()
    how += f", only fold {config.data.fold}" if config.data.fold is not None else ""
    note = f"{len(scores.keys)} test clips, {how}; {setup.request.segments} views averaged; 95 % interval by group"
    rows: list[Any] = [[name, value, *intervals.get(name, (None, None))] for name, value in metrics.items()]
    figures = draw_figures(scores, setup.classes, setup.positive, setup.request.modalities)
    table = Table("Test clips", ["metric", "value", "low", "high"], rows, note)
    result = new_result("finetune", f"Fine-tuning: {config.task}", " ".join(command), [table], list(figures))
    if ranks()[0] == 0:
        save_result(result, run)
    return Finetuned(metrics, intervals, scores, result)


def _set_up(config: FinetuneConfig, command: Sequence[str]) -> _Setup:
    index, classes, labels = labelled(select_clips(config.data), config.data.label)
    positive = _positive(config, classes)
    start = load_bundle(config.encoder) if config.encoder else None
    if start is not None:
        check_shards_fit(start, index)
        request, spec = request_of(start, config.data.segments), start.spec
    elif config.model is not None:
        request = clip_request(config.data, index)
        spec = clip_spec(request, index)
    else:
        raise RequestError("nothing to train: give 'encoder' (a bundle to start from) or 'model' (random weights)")
    return _Setup(config, settings_of(config, command), index, classes, labels, positive, start, request, spec)


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


def _run_split(setup: _Setup, split: Split, run: Path, resume: bool) -> Scores:
    """Scores of the split's test clips under a classifier trained on its train clips; a finished one is loaded."""
    config = setup.config
    # Every process scores all clips: few and cheap beside training, and no gathering can go wrong.
    test = ClipStream(
        take(setup.index, split.test),
        setup.request,
        config.data.batch_size,
        workers=config.data.workers,
        label=config.data.label,
        classes=setup.classes,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if resume and (run / "encoder").is_dir() and run != run_folder(config):
        model = load_bundle(run / "encoder").model
        assert isinstance(model, Classifier)
        return score_clips(model, setup.spec, test, device)
    set_seed(config.seed)
    if setup.start is not None:
        backbone = copy.deepcopy(setup.start.backbone)
    else:
        assert config.model is not None
        backbone = Backbone(setup.request.modalities, config.model)
    classifier = Classifier(backbone, setup.classes, config.dropout, config.unimodal_weight > 0, config.decision)
    _train(setup, split, run, classifier, resume and (run / "config.yaml").is_file())
    if ranks()[0] == 0:
        _save(setup, split, run, classifier)
    return score_clips(classifier, setup.spec, test, device)


def _train(setup: _Setup, split: Split, run: Path, classifier: Classifier, resume: bool) -> None:
    config, classes = setup.config, setup.classes
    weights = balanced_weights(setup.labels[split.train].tolist(), len(classes)) if config.balanced else None
    train_clips = take(setup.index, split.train)
    objective = SupervisedObjective(
        classifier,
        setup.spec,
        config.augment,
        config.unimodal_weight,
        weights,
        aids=config.aids,
        batches=config.train.steps * config.train.accumulate,
        keys=[sample.key for sample in train_clips.samples],
    )
    names = {"label": config.data.label, "classes": classes}
    heads = [*classifier.head.parameters(), *classifier.unimodal.parameters()]
    train(
        objective,
        clip_stream(train_clips, setup.request, config.data, config.seed, run, **names),
        config.train,
        run,
        seed=config.seed,
        parameter_groups=[
            {"params": list(classifier.backbone.parameters()), "scale": config.encoder_learning_rate},
            {"params": heads, "scale": config.head_learning_rate},
        ],
        resume=resume,
        tracker_mode=config.wandb,
        settings=setup.settings,
    )


def _save(setup: _Setup, split: Split, run: Path, classifier: Classifier) -> None:
    config, classes = setup.config, setup.classes
    used = f" ({config.data.fraction:.0%} of them used)" if config.data.fraction < 1 else ""
    clips = f"{len(split.train)} clips{used}"
    provenance = {
        "trained": f"to tell {' from '.join(classes) if len(classes) == 2 else f'{len(classes)} classes'}",
        "data": f"{setup.index.folder.name}: {clips}, tested on {len(split.test)} ({split.name})",
        "encoder": "pretrained without labels" if config.encoder else "from random weights",
        "steps": config.train.steps,
        "seed": config.seed,
        "command": " ".join(setup.settings["command"]),
    }
    name = None if setup.positive is None else classes[setup.positive]
    bundle = Bundle(classifier, setup.spec, setup.request.segments, config.task, name, provenance)
    save_bundle(bundle, run / "encoder")
