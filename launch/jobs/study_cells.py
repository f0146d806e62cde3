"""The three kinds of work in a study, each in its own process: expert, stored features, row."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray

from ...fusion.backbone import Backbone, alone, take_over
from ...fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.decision import EnergyDecision
from ...fusion.mechanisms.reliability import ReliabilityGate
from ...fusion.mechanisms_by_name import fusion_class
from ...fusion.spec import BackboneSpec, EncoderSpec, own_packages
from ...shards.clip_spec import ClipSpec
from ...shards.index.selection import with_modalities
from ...shards.index.table import Index
from ...shards.index.whole_file import write_whole
from ...shards.stream import ClipRequest, ClipStream
from ...tasks.finetuning.balance.relearning import Relearning
from ...tasks.finetuning.cross_fitting import CrossFitted, cross_fit_folds
from ...tasks.finetuning.reliability_fitting import fit_reliability
from ...tasks.finetuning.supervised_objective import SupervisedObjective
from ...tasks.fusion_study.feature_bank import (
    CLEAN,
    Corruption,
    Experts,
    StoredClips,
    StoredStream,
    load_stored,
    save_stored,
    store_clips,
)
from ...tasks.fusion_study.study_cell import judge_cell
from ...tasks.metrics.classification import roc_auc, top_k_accuracy
from ...tasks.robustness.conditions import TOGETHER
from ...tasks.splits.splits import Split, groups_of, take
from ..runs.bundles import split_bundle
from ..schema import RowConfig, StudyConfig
from ..training.device import keep_freed_memory
from ..training.loop import Evaluation, train
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

    def fold_of(self) -> dict[str, int]:
        """The cross-fitting fold of each clip that trains the experts; empty if the rows train on other clips."""
        if not self.config.experts.cross_fit or self.config.expert_split is not None:
            return {}
        clips = take(self.index, self.experts)
        groups = self.groups(clips)
        keys = [sample.key for sample in clips.samples]
        return cross_fit_folds(
            keys,
            clips.column(self.config.data.label),
            [groups[key] for key in keys],
            self.config.experts.cross_fit,
            self.config.seed,
        )

    def groups(self, clips: Index | None = None) -> dict[str, str]:
        """The group of each clip by key; without a group column each clip is a group."""
        clips = clips or self.index
        keys = [sample.key for sample in clips.samples]
        return dict(zip(keys, groups_of(clips, self.config.data.group) or keys, strict=True))

    def metric(self) -> Callable[[NDArray[Any], NDArray[Any]], float]:
        if self.config.metric == "accuracy":
            return top_k_accuracy
        return lambda probabilities, labels: roc_auc(probabilities[:, self.positive], labels == self.positive)


def train_expert(work: Work, name: str) -> None:
    """Trains one modality's encoder with its own classifier and saves it as FOLDER/expert-NAME/encoder.

    With cross-fitting, one more per fold is trained beside it on the other folds, and saved as
    FOLDER/expert-NAME/part-K/encoder.
    """
    run = work.folder / f"expert-{name}"
    if (run / "encoder").is_dir():
        return
    # One window per clip and step: windows of different clips are more informative than several of one clip.
    config, request = work.config, replace(work.request, modalities=(name,), segments=1)
    with _quietly(run):
        set_seed(work.seed)
        spec = ClipSpec.of(work.index, request)
        model = replace(config.model, fusion="static", fusion_arguments={}, modality_dropout=0.0)
        folds = work.fold_of()
        count = 1 + len(set(folds.values()))
        experts = [Classifier(Backbone((name,), model), work.classes) for _ in range(count)]
        if config.pretrained:
            bundle = split_bundle(Path(config.pretrained), work.index, work.split)
            for expert in experts:
                take_over(expert.backbone, name, bundle.backbone)
        clips = with_modalities(take(work.index, work.experts), [name])
        stream = clip_stream(
            clips, request, config.data, work.seed, run, label=config.data.label, classes=work.classes
        )
        objective = SupervisedObjective(experts[0], spec, config.augment)
        if len(experts) > 1:
            whole, *parts = [SupervisedObjective(expert, None, None) for expert in experts]
            objective = CrossFitted(whole, parts, folds, spec, config.augment)
        resume = (run / "config.yaml").is_file()
        loop = in_steps(config.experts, len(stream.index.samples), config.data.batch_size)
        train(objective, stream, loop, run, seed=work.seed, resume=resume, tracker_mode="disabled")
        application = application_of(request, work.index)
        # The whole expert comes last: its folder marks the work as done.
        for number, expert in reversed(list(enumerate(experts))):
            place = run if not number else run / f"part-{number - 1}"
            trained = f"expert of {name}" + (f", without fold {number - 1}" if number else "")
            facts = {"trained": trained, "steps": config.experts.steps, "seed": work.seed}
            bundle = Bundle(expert, spec, request.segments, "action", None, facts, application=application)
            save_bundle(bundle, place / "encoder")


def store_features(works: Sequence[Work], part: str) -> None:
    """Stores features of `part` (train, validation or test) of a fold, from the experts of every seed; clips are
    decoded once.

    Of test clips also at each noise level and corruption, and of training clips if rows are trained with noise.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    first = works[0]
    kinds = [CLEAN]
    if part == "test" or (part == "train" and first.config.taught_noise):
        kinds += [(TOGETHER, level) for level in first.config.noise]
    if part == "test":
        kinds += list(first.config.held_out.items())
    if all(_stored(work, part, kind).is_file() for work in works for kind in kinds):
        return
    experts = [_experts(work) for work in works]
    stream = _views(first, getattr(first.split, part))
    found = store_clips(experts, ClipSpec.of(first.index, first.request), stream, kinds)
    for work, row in zip(works, found, strict=True):
        for kind, clips in zip(kinds, row, strict=True):
            save_stored(clips, _stored(work, part, kind))


def train_row(work: Work, name: str, row: RowConfig, modalities: tuple[str, ...]) -> None:
    """Trains one row's fusion and heads on stored features and writes its result to FOLDER/rows/NAME.json."""
    target = work.folder / "rows" / f"{name}.json"
    if target.is_file():
        return
    config, run = work.config, work.folder / "rows" / name
    levels = config.noise if config.taught_noise else []
    with _quietly(run):
        set_seed(work.seed)
        clips = load_stored(_stored(work, "train")).only(*modalities)
        classifier = _row_classifier(work, row, clips, modalities)
        loud = [load_stored(_stored(work, "train", (TOGETHER, level))).only(*modalities) for level in levels]
        if not _fitted(work, classifier, clips, loud):
            _trained(work, row, classifier, clips, loud, run)
        stored = {part: load_stored(_stored(work, part)) for part in ("validation", "test")}
        noisy = {level: load_stored(_stored(work, "test", (TOGETHER, level))) for level in config.noise}
        unseen = {kind: load_stored(_stored(work, "test", kind)) for kind in config.held_out.items()}
        cell = judge_cell(
            *(name, work.fold, work.seed, classifier, stored["validation"], stored["test"], noisy, work.metric()),
            held_out=unseen,
        )
    write_whole(target, json.dumps(cell.plain()).encode())


def train_joint_row(work: Work, name: str, row: RowConfig) -> None:
    """Trains one row's encoders, fusion and heads together and writes its result to FOLDER/rows/NAME.json.

    It starts where the experts started, and trains for as many steps on the same clips; with `expert_split` also on
    those of the rows.
    """
    target = work.folder / "rows" / f"{name}.json"
    if target.is_file():
        return
    config, run, request = work.config, work.folder / "rows" / name, work.request
    with _quietly(run):
        set_seed(work.seed)
        spec = ClipSpec.of(work.index, request)
        classifier = _classifier(work, row, Backbone(request.modalities, with_fusion(config.model, row)))
        if config.pretrained:
            bundle = split_bundle(Path(config.pretrained), work.index, work.split)
            for modality in request.modalities:
                take_over(classifier.backbone, modality, bundle.backbone)
        numbers = np.union1d(work.experts, work.split.train)
        stream = clip_stream(
            take(work.index, numbers),
            replace(request, segments=1),
            config.data,
            work.seed,
            run,
            label=config.data.label,
            classes=work.classes,
        )
        loop = in_steps(config.experts, len(stream.index.samples), config.data.batch_size)
        teachers = {modality: _expert(work, modality) for modality in request.modalities}
        objective = SupervisedObjective(
            classifier,
            spec,
            config.augment,
            config.unimodal_weight,
            aids=row.aids,
            batches=loop.steps * loop.accumulate,
            keys=[sample.key for sample in stream.index.samples],
            teachers=teachers if row.aids.distillation else None,
            accumulate=loop.accumulate,
        )
        resume, evaluation = (run / "config.yaml").is_file(), None
        if row.aids.relearning:
            relearning = _relearning(work, row, classifier, numbers, loop.steps)
            evaluation = Evaluation(relearning, relearning.every)
        train(
            *(objective, stream, loop, run),
            seed=work.seed,
            resume=resume,
            tracker_mode="disabled",
            evaluation=evaluation,
        )
        single = {modality: Classifier(alone(classifier.backbone, modality), work.classes) for modality in teachers}
        kinds = [*((TOGETHER, level) for level in config.noise), *config.held_out.items()]
        (test, *corrupted) = _encoded(work, Experts(single), work.split.test, [CLEAN, *kinds])
        (validation,) = _encoded(work, Experts(single), work.split.validation, [CLEAN])
        over_features = _over_features(work, row, test, classifier)
        levels = dict(zip(config.noise, corrupted, strict=False))
        unseen = dict(zip(config.held_out.items(), corrupted[len(levels) :], strict=True))
        cell = judge_cell(
            *(name, work.fold, work.seed, over_features, validation, test, levels, work.metric()), held_out=unseen
        )
    write_whole(target, json.dumps(cell.plain()).encode())


def _relearning(
    work: Work, row: RowConfig, classifier: Classifier, numbers: NDArray[np.int64], steps: int
) -> Relearning:
    """Compares the validation clips with as many of the training clips `numbers`."""
    held_out, aids = work.split.validation, row.aids
    few = np.sort(np.random.default_rng(work.seed).permutation(numbers)[: len(held_out)])
    streams = _views(work, few), _views(work, held_out)
    every = max(round(aids.relearn_every * steps), 1)
    return Relearning(classifier, ClipSpec.of(work.index, work.request), *streams, aids.relearning, every, steps)


def _encoded(
    work: Work, experts: Experts, numbers: NDArray[np.int64], kinds: Sequence[Corruption]
) -> list[StoredClips]:
    """The clips `numbers` as encoded by `experts`, under each corruption."""
    (found,) = store_clips([experts], ClipSpec.of(work.index, work.request), _views(work, numbers), kinds)
    return found


def _views(work: Work, numbers: NDArray[np.int64]) -> ClipStream:
    """The evaluation stream of the clips `numbers`, with labels."""
    data = work.config.data
    return ClipStream(
        take(work.index, numbers), work.request, data.batch_size, label=data.label, classes=work.classes
    )


def _over_features(work: Work, row: RowConfig, clips: StoredClips, trained: Classifier) -> Classifier:
    """The classifier `trained`, over stored features instead of media."""
    modalities = trained.backbone.modalities
    model = _stored_model(work, row, clips, modalities)
    classifier = _classifier(work, row, Backbone(modalities, model))
    state = {key: value for key, value in trained.state_dict().items() if not key.startswith("backbone.encoders.")}
    classifier.load_state_dict(state, strict=False)
    return classifier


def _fitted(work: Work, classifier: Classifier, clips: StoredClips, loud: Sequence[StoredClips]) -> bool:
    """Fits a decision to the experts' scores of clips that they have not seen; False if it trains by steps instead.

    A decision without trained parameters joins the experts as they are.
    """
    decision, config = classifier.decision, work.config
    if decision is None or not (config.experts.cross_fit or config.expert_split):
        return False
    if isinstance(decision, ReliabilityGate):
        groups = work.groups()
        fitted = fit_reliability(
            decision, clips.evidence(groups), [noisy.evidence(groups) for noisy in loud], work.seed
        )
        print(json.dumps(asdict(fitted)))
        return True
    return not decision.gate_parameters() and not isinstance(decision, EnergyDecision)


def _trained(
    work: Work,
    row: RowConfig,
    classifier: Classifier,
    clips: StoredClips,
    loud: Sequence[StoredClips],
    run: Path,
) -> None:
    """Trains a row's fusion and heads by steps."""
    config = work.config
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


def _classifier(work: Work, row: RowConfig, backbone: Backbone, unimodal: bool = True) -> Classifier:
    """A classifier over `backbone`, with the row's decision if its fusion is one."""
    decision = row.fusion if fusion_class(row.fusion).level == "decision" else None
    arguments = row.arguments if decision else None
    return Classifier(backbone, work.classes, unimodal=unimodal, decision=decision, decision_arguments=arguments)


def _row_classifier(work: Work, row: RowConfig, clips: StoredClips, modalities: tuple[str, ...]) -> Classifier:
    """The row's model over stored features; its projections and heads start from those of the experts."""
    model = _stored_model(work, row, clips, modalities)
    classifier = _classifier(work, row, Backbone(modalities, model), unimodal=len(modalities) > 1)
    for name in modalities:
        expert = _expert(work, name)
        classifier.backbone.projections[name].load_state_dict(expert.backbone.projections[name].state_dict())
        if name in classifier.unimodal:
            classifier.unimodal[name].load_state_dict(expert.head[-1].state_dict())  # pyright: ignore
    return classifier


def _stored_model(work: Work, row: RowConfig, clips: StoredClips, modalities: tuple[str, ...]) -> BackboneSpec:
    """The model of a row over stored features."""
    encoders = {name: EncoderSpec(f"stored/{clips.streams[name].shape[-1]}") for name in modalities}
    return replace(with_fusion(work.config.model, row), encoders=encoders)


def with_fusion(model: BackboneSpec, row: RowConfig) -> BackboneSpec:
    """The model with the fusion of a row. A decision joins scores: its backbone has a fusion that is not used."""
    if fusion_class(row.fusion).level == "decision":
        return replace(model, fusion="static", fusion_arguments={})
    return replace(model, fusion=row.fusion, fusion_arguments=row.arguments)


def _experts(work: Work) -> Experts:
    """The trained experts of all modalities."""
    names, folds = work.request.modalities, work.fold_of()
    parts = [{name: _expert(work, name, f"part-{fold}") for name in names} for fold in sorted(set(folds.values()))]
    return Experts({name: _expert(work, name) for name in names}, parts, folds)


def _expert(work: Work, name: str, part: str = "") -> Classifier:
    folder = work.folder / f"expert-{name}" / part / "encoder"
    model = load_bundle(folder, own_packages(work.config.model)).model
    assert isinstance(model, Classifier)
    return model


def _stored(work: Work, part: str, kind: Corruption = CLEAN) -> Path:
    name = part if kind == CLEAN else f"{part}-{kind[0]}-{kind[1]:g}"
    return work.folder / "features" / f"{name}.safetensors"


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
