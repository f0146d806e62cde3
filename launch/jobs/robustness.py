"""`robustness`: a model's test clips under every subset of modalities and every corruption."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from ...fusion.backbone import Encoded
from ...fusion.bundle.bundle import Bundle, load_bundle
from ...fusion.bundle.bundle_files import FACTS
from ...fusion.classifier import Classifier
from ...shards.errors import DataError, RequestError
from ...shards.index.labels import label_column
from ...shards.index.table import Index, load_index
from ...shards.stream import ClipStream
from ...tasks.metrics.chance import accuracy_figure, chance_warning
from ...tasks.metrics.significance import few_groups_note
from ...tasks.probes.linear_probe import LinearProbe, fit_linear_probe
from ...tasks.records import Result, new_result
from ...tasks.robustness.conditions import MISSING, SWEEP, Sweep, join_sweeps, save_sweep
from ...tasks.robustness.corruptions import AXES, axes_of
from ...tasks.robustness.curves import Robustness, measure_robustness
from ...tasks.robustness.robustness_tables import robustness_figures, robustness_tables
from ...tasks.robustness.runner import Answer, Sweeper, classifier_answer, embed_clips
from ...tasks.splits.split_plan import SplitPlan, default_plan, plan_splits, say
from ...tasks.splits.splits import groups_of, labelled, take
from ..config.load import load_config
from ..runs.bundles import SEEN, current, measured_bundle
from ..runs.progress import Advance
from ..runs.recorded import keep_record
from ..schema import FinetuneConfig
from ..training.device import leave_cores_to
from .building import check_shards_fit, config_splits, held_request, request_of, select_clips, split_plan

EVERY = "all"
Shards = Path | str | Sequence[str]
Track = Callable[[int], AbstractContextManager[Advance]]


@dataclass(frozen=True)
class Options:
    """What to measure: `axes` (empty: all), `views` per clip (None: the model's own), `seed` of the noise."""

    label: str = "label"
    split: str | None = None
    plan: SplitPlan = field(default_factory=lambda: SplitPlan(None))
    axes: tuple[str, ...] = ()
    views: int | None = None
    batch_size: int = 32
    workers: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """The figures `found`, the answers they come from, the record; `met`: by axis, whether training used such a
    corruption; `classifier`: whether the model is a classifier, not a probe.
    """

    found: Robustness
    sweep: Sweep
    result: Result
    met: dict[str, str]
    classifier: bool

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        curves = [
            asdict(curve)
            | {
                # JSON has no infinity.
                "levels": [level if math.isfinite(level) else str(level) for level in curve.levels],
                "clean": curve.clean,
                "kept": curve.kept,
                "worst": curve.worst[0],
            }
            for curve in self.found.curves
        ]
        missing = [asdict(row) for row in self.found.missing]
        said = {"met_in_training": self.met, "warnings": self.result.warnings}
        return {"missing": missing, "curves": curves} | said


@dataclass(frozen=True)
class _Subject:
    """A model, its answer, and the clips of an index to score."""

    bundle: Bundle
    answer: Answer
    clips: Index
    classes: tuple[str, ...]


def robustness(model: Path, shards: Shards, options: Options, track: Track, command: str = "") -> Measured:
    """Measures a fine-tuned run on the test clips of its folds, a classifier's bundle, or an encoder with a linear
    probe.

    `options.split`: value of the column `split` on which a bundle is scored, `all` for every labelled clip.
    `options.plan`: for an encoder, which clips fit the probe and which are scored. A run keeps the record and the
    answers in RUN/results. Raises `RequestError` if model and shards do not fit.
    """
    axes_of("rgb", options.axes)  # a wrong name fails before anything is read
    settings = _settings(model)
    if settings.get("task") == "multilabel":
        raise _several(model)
    leave_cores_to(options.workers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.get("kind") == "finetune" and options.split is None:
        subjects, how, label, group = _of_run(model, shards)
    else:
        options = replace(options, label=label_column(load_index(shards), options.label))
        subjects, how = _of_bundle(model, shards, options, device)
        label, group = options.label, options.plan.group
    sweepers = [_sweeper(subject, label, options, device) for subject in subjects]
    with track(sum(sweeper.total for sweeper in sweepers)) as advance:
        parts = []
        for sweeper in sweepers:
            sweeper.progress = advance
            parts.append(sweeper.run())
    sweep = join_sweeps(parts)
    index = load_index(shards)
    groups = groups_of(index, group) or [sample.key for sample in index.samples]
    unit = dict(zip([sample.key for sample in index.samples], groups, strict=True))
    units = [unit[key] for key in sweep.keys]
    found = measure_robustness(sweep, units)
    note = f"{len(sweep.keys)} test clips in {len(set(units))} groups, {how}"
    note += few_groups_note(units, tested=False).rstrip(".").replace(" Only", ". Only")
    met = _met_in_training(settings, subjects[0].bundle)
    tables = robustness_tables(found, note, met)
    whole = max(found.missing, key=lambda row: len(row.present))
    clean = accuracy_figure("accuracy", whole.accuracy, whole.low, whole.high, whole.chance, whole.clips)
    warnings = chance_warning(
        [clean], "areas and curves say little about such a model; train it longer (train.steps)"
    )
    result = new_result("robustness", "Robustness", command, tables, list(robustness_figures(found)), warnings)
    if settings:
        keep_record(result, model)
        save_sweep(sweep, units, model / "results" / SWEEP)
    return Measured(found, sweep, result, met, isinstance(subjects[0].bundle.model, Classifier))


def _settings(model: Path) -> dict[str, Any]:
    """A run's resolved config; empty for a bundle."""
    path = model / "config.yaml"
    if not path.is_file():
        return {}
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise DataError(f"'{path}' is damaged: {' '.join(str(error).split())}") from error


def _of_run(run: Path, shards: Shards) -> tuple[list[_Subject], str, str, str]:
    """Every fold's classifier with its own test clips, how they were divided, and the columns of labels and
    groups.
    """
    config = load_config("finetune", str(run.resolve()))
    assert isinstance(config, FinetuneConfig)
    data = replace(config.data, shards=shards)
    index, classes, _ = labelled(select_clips(data), data.label)
    splits = config_splits(data, index, config.seed)
    # The folder of one fold means only that fold.
    splits = [split for split in splits if split.name == run.name] or splits
    subjects = []
    for split in splits:
        folder = run / split.name if (run / split.name).is_dir() else run
        if not (folder / "encoder" / FACTS).is_file():
            raise RequestError(
                f"'{folder}' holds no classifier yet: finish the run with `modalgate finetune ... --resume`"
            )
        bundle = load_bundle(current(folder / "encoder"))
        if SEEN in bundle.provenance:
            raise RequestError(
                f"'{folder}' holds a final model, trained on all labelled clips: give '{run.parent}', whose models "
                "have not seen their test clips"
            )
        subjects.append(_classifier(bundle, take(index, split.test), data.label))
        if list(subjects[-1].classes) != classes:
            raise RequestError(
                f"'{index.folder}' has the classes {', '.join(classes)}, but the run was trained on "
                f"{', '.join(subjects[-1].classes)} instead: give the shards it was trained on"
            )
    return subjects, split_plan(data, config.seed).describe(index), data.label, data.group


def _of_bundle(model: Path, shards: Shards, options: Options, device: str) -> tuple[list[_Subject], str]:
    index = load_index(shards)
    bundle = measured_bundle(model, index)
    check_shards_fit(bundle, index)
    index, classes, labels = labelled(index, options.label)
    if isinstance(bundle.model, Classifier):
        if bundle.model.multilabel:
            raise _several(model)
        if options.split == EVERY:
            return [_classifier(bundle, index, options.label)], "all labelled clips, also those of its training"
        if "split" not in index.columns:
            raise RequestError(
                f"'{index.folder}' has no column 'split' with the test clips: give --split all to "
                "score every labelled clip, also those that the model may have been trained on"
            )
        name = options.split or "test"
        return [_classifier(bundle, index.where(split=name), options.label)], f"split '{name}'"
    plan = replace(options.plan, test=options.split or options.plan.test)
    plan, line = default_plan(index, options.label, plan)
    say(line)
    splits = plan_splits(index, options.label, plan)
    stream = _stream(_Subject(bundle, _no_answer, index, tuple(classes)), options.label, options)
    values = embed_clips(bundle.backbone, bundle.spec, stream, device)
    units = None if plan.leaky else groups_of(index, plan.group)
    subjects = []
    for split in splits:
        held = (values[split.validation], labels[split.validation]) if len(split.validation) else None
        names = None if units is None else np.array(units)[split.train]
        probe = fit_linear_probe(
            values[split.train], labels[split.train], len(classes), validation=held, groups=names
        )
        subjects.append(_Subject(bundle, _probe_answer(probe), take(index, split.test), tuple(classes)))
    return subjects, f"{plan.describe(index)}; a linear probe fitted on clean fused features"


def _several(model: Path) -> RequestError:
    return RequestError(f"'{model}' predicts several classes per clip: robustness needs one class per clip")


def _classifier(bundle: Bundle, clips: Index, label: str) -> _Subject:
    assert isinstance(bundle.model, Classifier)
    check_shards_fit(bundle, clips)
    unknown = sorted(set(clips.column(label)) - set(bundle.model.classes))
    if unknown:
        raise RequestError(
            f"column '{label}' has '{unknown[0]}', which is not a class of this model: its classes are "
            f"{', '.join(bundle.model.classes)}"
        )
    return _Subject(bundle, classifier_answer(bundle.model), clips, bundle.model.classes)


def _probe_answer(probe: LinearProbe) -> Answer:
    """The probe's answer to the fused embedding; views are averaged before it, as in fitting."""

    def answer(encoded: Encoded) -> tuple[Tensor, Tensor]:
        scores = probe.scores(encoded.embedding.mean(dim=1).float().cpu().numpy())
        return torch.from_numpy(scores), encoded.weights.mean(dim=1)

    return answer


def _no_answer(encoded: Encoded) -> tuple[Tensor, Tensor]:
    raise AssertionError("features are extracted before a probe exists")


def _stream(subject: _Subject, label: str, options: Options) -> ClipStream:
    request = held_request(request_of(subject.bundle, options.views), subject.clips)
    return ClipStream(
        subject.clips, request, options.batch_size, workers=options.workers, label=label, classes=subject.classes
    )


def _sweeper(subject: _Subject, label: str, options: Options, device: str) -> Sweeper:
    return Sweeper(
        subject.bundle.backbone,
        subject.answer,
        subject.bundle.spec,
        _stream(subject, label, options),
        axes=options.axes,
        seed=options.seed,
        device=device,
    )


def _met_in_training(settings: dict[str, Any], bundle: Bundle) -> dict[str, str]:
    """By axis, whether a run's training used such a corruption; `unknown` without a config."""
    augment = settings.get("augment") or {}
    told = " ".join([str(bundle.provenance.get("trained", "")), _pretrained_by(settings)])
    # Pretext corruptions include noise and missing modalities, never the other axes.
    denoised = "gate_denoising" in told or "gate_denoising" in (settings.get("tasks") or {})
    found = dict.fromkeys(AXES, "no")
    for axis, key in (("noise", "noise"), ("snr", "audio_noise")):
        met = denoised or bool(augment.get(key))
        found[axis] = "yes" if met else "no" if settings else "unknown"
    found[MISSING] = "yes" if denoised or bundle.backbone.spec.modality_dropout else "no"
    return found


def _pretrained_by(settings: dict[str, Any]) -> str:
    """The pretraining of the encoder that a fine-tuning started from, if its folder still exists."""
    path = Path(str(settings.get("encoder") or "")) / FACTS
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["provenance"].get("trained", ""))
    except (OSError, ValueError, KeyError, AttributeError):
        return ""
