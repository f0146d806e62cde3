"""The settings that all splits of a fine-tuning share, and the training of one classifier."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...fusion.backbone import Backbone, alone
from ...fusion.blank_segment import check_windows
from ...fusion.bundle.bundle import Bundle, load_bundle
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.reliability import ReliabilityGate
from ...shards.clip_spec import ClipSpec
from ...shards.errors import RequestError, choice_error
from ...shards.index.selection import fraction_of
from ...shards.index.table import Index
from ...shards.stream import ClipRequest, ClipStream
from ...tasks.evaluation.scores import Scores, score_clips
from ...tasks.finetuning.balance.aids import AidsConfig
from ...tasks.finetuning.balance.relearning import Relearning
from ...tasks.finetuning.cross_fitting import CrossFitted
from ...tasks.finetuning.early_stopping import EarlyStopping, Until
from ...tasks.finetuning.layer_decay import encoder_groups
from ...tasks.finetuning.supervised_objective import SupervisedObjective, balanced_weights, guess, positive_weights
from ...tasks.metrics.multilabel import Labelled, labelled_clips
from ...tasks.splits.splits import Split, hold_out, take
from ..config.load import settings_of
from ..jobs.adapting import adapt
from ..jobs.building import (
    check_relearning,
    check_shards_fit,
    choose_folds,
    choose_label,
    clip_request,
    clip_stream,
    held_request,
    in_steps,
    present_clips,
    request_from,
    select_clips,
    spec_for,
)
from ..runs.bundles import any_bundle, split_bundle
from ..runs.logbook import warn
from ..schema import FinetuneConfig
from ..training.device import ranks
from ..training.loop import Evaluation, train


@dataclass(frozen=True)
class CrossFit:
    """Classifiers that train beside the one that is used, each without the clips of one fold.

    `fold_of`: fold of each training clip by key. Without `parts` there is one group only.
    """

    parts: list[Classifier]
    fold_of: dict[str, int]


@dataclass(frozen=True)
class Recipe:
    """What a fine-tuning trains on, and from what.

    - `settings`: the resolved config.
    - `column`: the column of the labels.
    - `strata`: the column whose values folds spread evenly.
    - `labels`: class numbers (n,), or for the task multilabel 0 and 1 (n, C).
    - `positive`: number of the class to detect.
    - `start`: the pretrained bundle.
    """

    config: FinetuneConfig
    settings: dict[str, Any]
    index: Index
    column: str
    strata: str
    classes: list[str]
    labels: NDArray[np.int64]
    positive: int | None
    start: Bundle | None
    request: ClipRequest
    spec: ClipSpec

    def classifier(self) -> Classifier:
        """An untrained head on a copy of the pretrained backbone, or on random weights."""
        config = self.config
        if self.start is not None:
            backbone = copy.deepcopy(self.start.backbone)
        else:
            assert config.model is not None
            backbone = Backbone(self.request.modalities, config.model)
        backbone.prepare_as(self.spec)
        return Classifier(
            backbone,
            self.classes,
            config.dropout,
            config.unimodal_weight > 0,
            config.decision,
            multilabel=self.multilabel,
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The model's modalities in the order of its gate weights; the clips may lack some of them."""
        return self.request.modalities if self.start is None else self.start.backbone.modalities

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have several classes."""
        return self.config.task == "multilabel"

    @property
    def told(self) -> dict[str, Any]:
        """Arguments of a stream that reads labels."""
        return {"label": self.column, "classes": self.classes, "multilabel": self.multilabel}

    @property
    def purpose(self) -> str:
        """The purpose of the classifier, as text."""
        if self.multilabel:
            return f"to predict which of {len(self.classes)} classes a clip has"
        pair = " from ".join(self.classes) if len(self.classes) == 2 else f"{len(self.classes)} classes"
        return f"to distinguish {pair}"

    def alone(self, name: str) -> tuple["Recipe", Classifier]:
        """The recipe with only one modality, without aids or other heads; and its classifier."""
        config = replace(self.config, unimodal_weight=0.0, decision=None, aids=AidsConfig())
        spec = replace(self.spec, statistics={name: self.spec.statistics[name]})
        request = replace(self.request, modalities=(name,))
        backbone = alone(self.classifier().backbone, name)
        classifier = Classifier(backbone, self.classes, config.dropout, multilabel=self.multilabel)
        return replace(self, config=config, request=request, spec=spec), classifier

    def for_split(self, split: Split) -> "Recipe":
        """The recipe with the encoder that was pretrained for this split, if each split has its own.

        Raises `RequestError` if that encoder has seen the split's test clips.
        """
        if self.start is None or not self.config.encoder:
            return self
        return replace(self, start=split_bundle(Path(self.config.encoder), self.index, split))

    def watched(self, split: Split) -> Split:
        """The split, with validation clips if the config holds some out.

        Raises `RequestError` if they lack the positive class, by which a threshold is chosen.
        """
        if not self.config.hold_out:
            return split
        watched = hold_out(split, self.index, self.strata, self.config.data.group, self.config.seed)
        if self.positive is not None and not (self.labels[watched.validation] == self.positive).any():
            raise RequestError(
                f"split '{split.name}' has no validation clip of class '{self.classes[self.positive]}', so no "
                "threshold can be chosen: give another seed=, or hold_out=false"
            )
        return watched

    def for_clips(self, numbers: NDArray[np.int64]) -> "Recipe":
        """The recipe with its epochs of these training clips converted to steps."""
        loop = in_steps(self.config.train, len(self.used(numbers)), self.config.data.batch_size)
        return replace(self, config=replace(self.config, train=loop))

    def used(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the training clips `numbers` that the config's `data.fraction` uses, in the index's order."""
        kept = {sample.key for sample in fraction_of(take(self.index, numbers), self.config.data.fraction).samples}
        samples = self.index.samples
        return np.array([number for number in np.sort(numbers) if samples[number].key in kept], np.int64)

    def score(self, classifier: Classifier, numbers: NDArray[np.int64]) -> Scores:
        """Scores of these samples, the same in every process."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return score_clips(classifier, self.spec, self.stream(numbers), device)

    def stream(self, numbers: NDArray[np.int64]) -> ClipStream:
        """These samples with labels, without augmentation."""
        data = self.config.data
        clips = take(self.index, numbers)
        return ClipStream(clips, self.request, data.batch_size, workers=data.workers, **self.told)


def finetuning_clips(config: FinetuneConfig) -> Labelled:
    """The labelled clips that the config divides into splits."""
    data, several = config.data, config.task == "multilabel"
    index = present_clips(data) if several else select_clips(data)
    return labelled_clips(index, data.label, data.labels, several, data.classes)


def set_up(config: FinetuneConfig, command: Sequence[str]) -> Recipe:
    """The recipe of a config. Raises `RequestError` if the config does not fit its shards."""
    config = replace(config, data=choose_label(config.data, present_clips(config.data)))
    clips = finetuning_clips(config)
    config = replace(config, data=choose_folds(config.data, clips.index, clips.strata, config.seed))
    index, positive = clips.index, _positive(config, clips.classes)
    config = adapt(config, index, command)
    _check_aids(config)
    data = config.data
    start = load_bundle(any_bundle(Path(config.encoder))) if config.encoder else None
    if start is not None:
        check_shards_fit(start, index)
        asked = request_from(start, data)
        # Recordings are prepared as these clips were packed, not as those of the pretraining.
        spec = replace(spec_for(start.spec, asked), packing=index.settings)
        request = held_request(asked, index)
        check_windows(start.backbone, spec)
        for name in asked.modalities:
            if name not in request.modalities and ranks()[0] == 0:
                warn(f"'{name}' of the encoder is in no clip of '{index.folder}': it is not trained")
    elif config.model is not None:
        request = clip_request(data, index)
        spec = ClipSpec.of(index, request)
        check_windows(Backbone(request.modalities, config.model), spec)
    else:
        raise RequestError("nothing to train: give 'encoder' (a bundle to start from) or 'model' (random weights)")
    return Recipe(
        config,
        settings_of(config, command),
        index,
        clips.column,
        clips.strata,
        clips.classes,
        clips.labels,
        positive,
        start,
        request,
        spec,
    )


def supervised_objective(
    recipe: Recipe,
    classifier: Classifier,
    numbers: NDArray[np.int64],
    head_weights: Mapping[str, float] | None = None,
    fit: CrossFit | None = None,
    teachers: Mapping[str, Classifier] | None = None,
) -> SupervisedObjective | CrossFitted:
    """The objective of training `classifier` on those of the samples `numbers` that `data.fraction` uses.

    The classifiers of `fit` train beside it. With `teachers`, the gate trains with its experts (see `train_jointly`).
    """
    config, weights = recipe.config, None
    numbers = recipe.used(numbers)
    if config.balanced and recipe.multilabel:
        weights = positive_weights(recipe.labels[numbers])
    elif config.balanced:
        weights = balanced_weights(recipe.labels[numbers].tolist(), len(recipe.classes))
    clips = take(recipe.index, numbers)
    if isinstance(classifier.decision, ReliabilityGate) and teachers is None:
        # Each modality learns the label alone. The gate is fitted afterwards.
        head_weights = {"joint": 0.0} | dict.fromkeys(classifier.unimodal, 1 / len(classifier.unimodal))

    def objective(model: Classifier, shared: bool) -> SupervisedObjective:
        return SupervisedObjective(
            model,
            None if shared else recipe.spec,
            None if shared else config.augment,
            config.unimodal_weight if classifier.unimodal else 0.0,
            weights,
            aids=config.aids,
            batches=config.train.steps * config.train.accumulate,
            keys=[sample.key for sample in clips.samples],
            head_weights=head_weights,
            guessing=guess(recipe.labels[numbers], len(recipe.classes), weights),
            accumulate=config.train.accumulate,
            teachers=teachers,
        )

    if fit is None or not fit.parts:
        return objective(classifier, shared=False)
    parts = [objective(part, shared=True) for part in fit.parts]
    return CrossFitted(objective(classifier, shared=True), parts, fit.fold_of, recipe.spec, config.augment)


def train_classifier(
    recipe: Recipe,
    classifier: Classifier,
    numbers: NDArray[np.int64],
    run: Path,
    *,
    stopping: EarlyStopping | Until | None = None,
    head_weights: Mapping[str, float] | None = None,
    fit: CrossFit | None = None,
    held_out: NDArray[np.int64] | None = None,
    teachers: Mapping[str, Classifier] | None = None,
    resume: bool = False,
) -> None:
    """Trains `classifier` in place on the samples `numbers`; `stopping` ends it early and restores its best state.

    The classifiers of `fit` train beside it. `held_out`: samples that do not train, for `aids.relearning`.
    `teachers`: frozen experts, for `aids.distillation`.
    """
    config, clips = recipe.config, take(recipe.index, numbers)
    evaluation = None
    if stopping is not None:
        evaluation = Evaluation(stopping, stopping.steps if isinstance(stopping, Until) else config.evaluate_every)
    if config.aids.relearning and held_out is not None:
        relearning = _relearning(recipe, classifier, numbers, held_out, stopping)
        evaluation = Evaluation(relearning, relearning.interval)
    objective = supervised_objective(recipe, classifier, numbers, head_weights, fit, teachers)
    groups, tops = [], []
    for model in (classifier, *(fit.parts if fit else ())):
        groups += encoder_groups(
            model.backbone,
            scale=config.encoder_learning_rate,
            decay=config.layer_decay,
            begin=config.heads_first,
            end=config.unfrozen_by,
        )
        heads = [*model.head.parameters(), *model.unimodal.parameters()]
        # A group of its own, the last, so that the optimiser numbers the others as in older checkpoints.
        joined = [] if model.decision is None else [*model.decision.parameters()]
        tops += [{"params": part, "scale": config.head_learning_rate} for part in (heads, joined)]
    train(
        objective,
        clip_stream(clips, recipe.request, config.data, config.seed, run, **recipe.told),
        config.train,
        run,
        seed=config.seed,
        parameter_groups=[*groups, *tops],
        resume=resume,
        tracker_mode=config.wandb,
        tensorboard=config.tensorboard,
        settings=recipe.settings,
        evaluation=evaluation,
    )
    if isinstance(stopping, EarlyStopping):
        stopping.restore()


def _relearning(
    recipe: Recipe,
    classifier: Classifier,
    numbers: NDArray[np.int64],
    held_out: NDArray[np.int64],
    stopping: EarlyStopping | Until | None,
) -> Relearning:
    """Compares the held-out clips with as many training clips."""
    config = recipe.config
    used = recipe.used(numbers)
    few = np.sort(np.random.default_rng(config.seed).permutation(used)[: len(held_out)])
    return Relearning(
        classifier,
        recipe.spec,
        recipe.stream(few),
        recipe.stream(held_out),
        config.aids.relearning,
        max(round(config.aids.relearn_every * config.train.steps), 1),
        config.train.steps,
        stopping,
        config.evaluate_every,
    )


def _check_aids(config: FinetuneConfig) -> None:
    """Raises `RequestError` for remedies that need other settings."""
    for name in ("modulation", "pareto", "gate_warmup", "alternation"):
        # The divided copy of the model loses the hooks on its gradients.
        if getattr(config.aids, name) and config.train.strategy == "fsdp":
            raise RequestError(f"aids.{name} changes gradients, which fsdp divides: set train.strategy=ddp")
    if not config.aids.relearning:
        return
    if config.task == "multilabel":
        raise RequestError("aids.relearning needs a single class per clip: set it to 0 for multilabel")
    if not config.hold_out:
        raise RequestError("aids.relearning compares training clips with held-out clips: set hold_out=true")
    if config.final:
        raise RequestError("aids.relearning needs held-out clips, but a final model has none: remove --final")
    if not config.encoder_learning_rate:
        raise RequestError("aids.relearning moves encoders, which do not train: set encoder_learning_rate above 0")
    check_relearning(config.train, "train")


def _positive(config: FinetuneConfig, classes: list[str]) -> int | None:
    if config.task != "violence":
        return None
    if config.positive is None:
        raise RequestError(f"config key 'positive' is missing: give the class to detect, one of {', '.join(classes)}")
    if config.positive not in classes:
        raise choice_error("class for 'positive'", config.positive, classes)
    if len(classes) != 2:
        raise RequestError(
            f"task violence detects one of two classes, but column '{config.data.label}' has {len(classes)}"
        )
    return classes.index(config.positive)
