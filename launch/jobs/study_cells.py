"""The three kinds of work in a study, each in its own process: expert, stored features, row."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray

from ...fusion.backbone import Backbone, encoder_spec, take_over
from ...fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from ...fusion.classifier import Classifier
from ...fusion.mechanisms_by_name import fusion_class
from ...fusion.spec import EncoderSpec, own_packages
from ...shards.clip_spec import ClipSpec
from ...shards.index.selection import with_modalities
from ...shards.index.table import Index
from ...shards.index.whole_file import write_whole
from ...shards.stream import ClipRequest, ClipStream
from ...tasks.finetuning.supervised_objective import SupervisedObjective
from ...tasks.fusion_study.feature_bank import StoredClips, StoredStream, load_stored, save_stored, store_clips
from ...tasks.fusion_study.study_cell import judge_cell
from ...tasks.metrics.classification import roc_auc, top_k_accuracy
from ...tasks.splits.splits import Split, take
from ..runs.bundles import split_bundle
from ..schema import RowConfig, StudyConfig
from ..training.device import keep_freed_memory
from ..training.loop import train
from .building import application_of, clip_stream, in_steps


@dataclass(frozen=True)
class Work:
    """The inputs of every piece of work: the config, the clips, one of the `splits` and one of the seeds.

    `experts`: the clips that train encoders in this fold. `positive`: the class number of the AUC.
    """

    config: StudyConfig
    run: Path
    index: Index
    classes: list[str]
    request: ClipRequest
    fold: int
    split: Split
    experts: NDArray[np.int64]
    seed: int
    positive: int | None

    @property
    def folder(self) -> Path:
        return self.run / f"fold-{self.fold}" / f"seed-{self.seed}"

    def metric(self) -> Callable[[NDArray[Any], NDArray[Any]], float]:
        if self.config.metric == "accuracy":
            return top_k_accuracy
        return lambda probabilities, labels: roc_auc(probabilities[:, self.positive], labels == self.positive)


def run_errand(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Does one piece of work in a process of a pool; an interruption ends the process.

    Otherwise the pool would start the next piece in that process and wait for it.
    """
    try:
        function(*arguments)
    except KeyboardInterrupt:
        os._exit(130)


def train_expert(work: Work, name: str) -> None:
    """Trains one modality's encoder with its own classifier and saves it as FOLDER/expert-NAME/encoder."""
    run = work.folder / f"expert-{name}"
    if (run / "encoder").is_dir():
        return
    # One window per clip and step: windows of different clips are more informative than several of one clip.
    config, request = work.config, replace(work.request, modalities=(name,), segments=1)
    with _quietly(run):
        set_seed(work.seed)
        spec = ClipSpec.of(work.index, request)
        model = replace(config.model, fusion="static", fusion_arguments={}, modality_dropout=0.0)
        classifier = Classifier(Backbone((name,), model), work.classes)
        if config.pretrained:
            bundle = split_bundle(Path(config.pretrained), work.index, work.split)
            take_over(classifier.backbone, name, bundle.backbone)
        objective = SupervisedObjective(classifier, spec, config.augment)
        clips = with_modalities(take(work.index, work.experts), [name])
        stream = clip_stream(
            clips, request, config.data, work.seed, run, label=config.data.label, classes=work.classes
        )
        resume = (run / "config.yaml").is_file()
        loop = in_steps(config.experts, len(stream.index.samples), config.data.batch_size)
        train(objective, stream, loop, run, seed=work.seed, resume=resume, tracker_mode="disabled")
        facts = {"trained": f"expert of {name}", "steps": config.experts.steps, "seed": work.seed}
        application = application_of(request, work.index)
        bundle = Bundle(classifier, spec, request.segments, "action", None, facts, application=application)
        save_bundle(bundle, run / "encoder")


def store_features(works: Sequence[Work], part: str) -> None:
    """Stores features of `part` (train, validation or test) of a fold, from the experts of every seed; clips are
    decoded once.

    Of test clips also at each noise level, and of training clips if rows are trained with noise.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    first = works[0]
    levels = {part: 0.0}
    if part == "test" or (part == "train" and first.config.taught_noise):
        levels |= {_noise(part, level): level for level in first.config.noise}
    if all(_stored(work, name).is_file() for work in works for name in levels):
        return
    experts = [{name: _expert(work, name).backbone for name in work.request.modalities} for work in works]
    stream = ClipStream(
        take(first.index, getattr(first.split, part)),
        first.request,
        first.config.data.batch_size,
        label=first.config.data.label,
        classes=first.classes,
    )
    found = store_clips(experts, ClipSpec.of(first.index, first.request), stream, list(levels.values()))
    for work, row in zip(works, found, strict=True):
        for name, clips in zip(levels, row, strict=True):
            save_stored(clips, _stored(work, name))


def train_row(work: Work, name: str, row: RowConfig, modalities: tuple[str, ...]) -> None:
    """Trains one row's fusion and heads on stored features and writes its result to FOLDER/rows/NAME.json."""
    target = work.folder / "rows" / f"{name}.json"
    if target.is_file():
        return
    config, run = work.config, work.folder / "rows" / name
    stored = {part: load_stored(_stored(work, part)) for part in ("train", "validation", "test")}
    noisy = {level: load_stored(_stored(work, _noise("test", level))) for level in config.noise}
    taught = config.noise if config.taught_noise else []
    loud = [load_stored(_stored(work, _noise("train", level))).only(*modalities) for level in taught]
    with _quietly(run):
        set_seed(work.seed)
        clips = stored["train"].only(*modalities)
        classifier = _row_classifier(work, row, clips, modalities)
        loop = in_steps(config.fusion, len(clips.keys), config.fusion_batch_size)
        objective = SupervisedObjective(
            classifier,
            None,
            None,
            config.unimodal_weight if classifier.unimodal else 0.0,
            aids=row.aids,
            batches=loop.steps * loop.accumulate,
            keys=clips.keys,
        )
        stream = StoredStream(clips, config.fusion_batch_size, work.seed, noisy=loud, share=config.taught_noise)
        resume = (run / "config.yaml").is_file()
        train(objective, stream, loop, run, seed=work.seed, resume=resume, tracker_mode="disabled")
        cell = judge_cell(
            name, work.fold, work.seed, classifier, stored["validation"], stored["test"], noisy, work.metric()
        )
    write_whole(target, json.dumps(cell.plain()).encode())


def _row_classifier(work: Work, row: RowConfig, clips: StoredClips, modalities: tuple[str, ...]) -> Classifier:
    """The row's model over stored features; its projections and heads start from those of the experts."""
    decision = row.fusion if fusion_class(row.fusion).level == "decision" else None
    encoders = {name: EncoderSpec(f"stored/{clips.streams[name].shape[-1]}") for name in modalities}
    model = replace(
        work.config.model,
        fusion="static" if decision else row.fusion,
        fusion_arguments={} if decision else row.arguments,
        encoders=encoders,
    )
    classifier = Classifier(
        Backbone(modalities, model), work.classes, unimodal=len(modalities) > 1, decision=decision
    )
    for name in modalities:
        expert = _expert(work, name)
        classifier.backbone.projections[name].load_state_dict(expert.backbone.projections[name].state_dict())
        if name in classifier.unimodal:
            classifier.unimodal[name].load_state_dict(expert.head[-1].state_dict())  # pyright: ignore
    return classifier


def real_backbone(config: StudyConfig, row: RowConfig, modalities: tuple[str, ...]) -> Backbone:
    """The backbone of a row with its encoders, to count and time it."""
    fusion = "static" if fusion_class(row.fusion).level == "decision" else row.fusion
    arguments = {} if fusion != row.fusion else row.arguments
    encoders = {name: encoder_spec(config.model, name).untrained() for name in modalities}
    return Backbone(modalities, replace(config.model, fusion=fusion, fusion_arguments=arguments, encoders=encoders))


def _expert(work: Work, name: str) -> Classifier:
    model = load_bundle(work.folder / f"expert-{name}" / "encoder", own_packages(work.config.model)).model
    assert isinstance(model, Classifier)
    return model


def _noise(part: str, level: float) -> str:
    return f"{part}-noise-{level:g}"


def _stored(work: Work, part: str) -> Path:
    return work.folder / "features" / f"{part}.safetensors"


@contextmanager
def _quietly(run: Path) -> Iterator[None]:
    """Uses one thread, and writes the loop's output to RUN.log: many runs share one terminal."""
    torch.set_num_threads(1)
    run.parent.mkdir(parents=True, exist_ok=True)
    with (
        run.with_name(f"{run.name}.log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        yield
