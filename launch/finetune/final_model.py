"""The final model of a fine-tuning: trained on the clips of all splits, calibrated on their test scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate.utils import set_seed

from ...fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.reliability import ReliabilityGate
from ...fusion.spec import own_packages
from ...shards.errors import RequestError
from ...tasks.evaluation.validation_choices import TEMPERATURE, THRESHOLD, Calibration
from ...tasks.finetuning.early_stopping import BEST, Until, chosen_step
from ...tasks.splits.splits import Split
from ..jobs.building import application_of, in_steps
from ..runs.bundles import FINAL, SEEN, undivided_bundle
from ..training.checkpoint import latest_checkpoint
from ..training.device import ranks
from .cross_fit import cross_fit_of, fit_gate
from .head_blending import WEIGHTS
from .joint_training import train_jointly
from .modality_votes import weigh_modalities
from .recipe import Recipe, train_classifier


@dataclass(frozen=True)
class Figures:
    """Figures from the test scores of all splits: `metrics` under a `note`, and the calibration fitted on them.

    `kind` of the scores: `out of fold` or `held out`.
    """

    metrics: Mapping[str, float]
    note: str
    calibration: Calibration
    kind: str


@dataclass(frozen=True)
class Length:
    """Length of the final training: the first `until` of `steps` scheduled steps."""

    steps: int
    until: int


def check_final(recipe: Recipe, splits: Sequence[Split]) -> None:
    """Raises `RequestError`, before any training, if the settings do not allow a final model."""
    config = recipe.config
    if config.data.fold is not None:
        raise RequestError("a final model is calibrated on the scores of all folds: remove data.fold or --final")
    if config.data.fraction < 1:
        raise RequestError("a final model is trained on all labelled clips: remove data.fraction or --final")
    if any(split.name == FINAL for split in splits):
        raise RequestError(f"a split is named '{FINAL}', like the folder of the final model: rename its list")
    if config.encoder:
        start, other = undivided_bundle(Path(config.encoder)), recipe.start
        assert other is not None
        if (start.backbone.modalities, start.spec) != (other.backbone.modalities, other.spec):
            raise RequestError(
                f"the final encoder of '{config.encoder}' prepares clips differently from those of its splits: "
                "pretrain it with the settings of the splits"
            )


def train_final(
    recipe: Recipe, splits: Sequence[Split], run: Path, folders: Sequence[Path], figures: Figures, resume: bool
) -> Length:
    """Trains on the clips of all `splits` and saves RUN/final/encoder; with `resume` a finished one is kept.

    `folders`: of the finished runs of the splits. `figures`: from their test scores.
    """
    place, config = run / FINAL, recipe.config
    clips = np.unique(np.concatenate([part for s in splits for part in (s.train, s.validation, s.test)]))
    length = final_length(recipe, splits, folders, len(clips))
    if resume and (place / "encoder").is_dir():
        made = load_bundle(place / "encoder", own_packages(config.model, config.decision))
        if made.provenance["steps"] == length.until:
            return length
    if config.encoder:
        recipe = replace(recipe, start=undivided_bundle(Path(config.encoder)))
    # No validation clips are left to choose a checkpoint.
    loop = replace(config.train, steps=length.steps, best=None)
    recipe = replace(recipe, config=replace(config, train=loop))
    again = resume and (place / "config.yaml").is_file()
    set_seed(config.seed)
    classifier = recipe.classifier()
    fit = cross_fit_of(recipe, clips)
    weigh_modalities(recipe, classifier, clips, FINAL)
    train_classifier(
        recipe,
        classifier,
        clips,
        place,
        stopping=Until(length.until, _reached(place) if again else 0) if length.until < length.steps else None,
        head_weights=_blended(folders) if config.aids.blending else None,
        fit=fit,
        resume=again,
    )
    if fit is None:
        _take_gate(classifier, recipe, folders[0])
    fit_gate(recipe, classifier, fit, Split(FINAL, clips, clips[:0], clips[:0]))
    train_jointly(recipe, classifier, clips, place, again)
    if ranks()[0] == 0:
        provenance = {
            "trained": recipe.purpose,
            "data": f"{recipe.index.folder.name}: all {len(clips)} labelled clips",
            "figures": f"{figures.kind}: of models that had not seen the clips they scored, not of this model",
            "calibration": f"{figures.kind}, on the same scores: {_in_words(figures.calibration)}",
            "encoder": "pretrained without labels" if config.encoder else "from random weights",
            "steps": length.until,
            "seed": config.seed,
            "command": " ".join(recipe.settings["command"]),
            SEEN: recipe.index.fingerprint,
        }
        name = None if recipe.positive is None else recipe.classes[recipe.positive]
        segments, metrics = recipe.request.segments, card_metrics(figures)
        application = replace(
            application_of(recipe.request, recipe.index),
            threshold=None if name is None else figures.calibration.thresholds.get(name),
            temperature=figures.calibration.temperature,
        )
        bundle = Bundle(
            classifier, recipe.spec, segments, config.task, name, provenance, metrics, application=application
        )
        save_bundle(bundle, place / "encoder")
    return length


def _take_gate(classifier: Classifier, recipe: Recipe, folder: Path) -> None:
    """Copies the reliability gate of the first split's model: no clips are left to fit another."""
    gate, config = classifier.decision, recipe.config
    if isinstance(gate, ReliabilityGate):
        model = load_bundle(folder / "encoder", own_packages(config.model, config.decision)).model
        assert isinstance(model, Classifier)
        assert model.decision is not None
        gate.load_state_dict(model.decision.state_dict())


def final_length(recipe: Recipe, splits: Sequence[Split], folders: Sequence[Path], clips: int) -> Length:
    """Steps in which each of the `clips` is seen as often as in the splits.

    If validation clips chose a step in each split, training ends after the mean share of those steps.
    """
    train, steps, shares = recipe.config.train, [], []
    for split, folder in zip(splits, folders, strict=True):
        trained = recipe.watched(split).train
        taken = recipe.for_clips(trained).config.train.steps
        steps.append(taken * clips / len(trained))
        if recipe.config.evaluate_every and (folder / BEST).is_file():
            shares.append(min(chosen_step(folder / BEST) / taken, 1.0))
    total = max(round(float(np.mean(steps))), 1)
    if train.epochs is not None:
        total = in_steps(train, clips, recipe.config.data.batch_size).steps
    return Length(total, max(round(total * float(np.mean(shares))), 1) if shares else total)


def card_metrics(figures: Figures) -> dict[str, float]:
    """The figures on a final model's card, each with the clips it was measured on."""
    known = {name: value for name, value in figures.metrics.items() if np.isfinite(value)}
    found = {f"{name} ({figures.kind}; {figures.note})": value for name, value in known.items()}
    calibration, several = figures.calibration, len(figures.calibration.thresholds) > 1
    if calibration.temperature is not None:
        found[f"{TEMPERATURE} ({figures.kind})"] = calibration.temperature
    for name, value in calibration.thresholds.items():
        found[f"threshold of {name} ({figures.kind})" if several else f"{THRESHOLD} ({figures.kind})"] = value
    return found


def _in_words(calibration: Calibration) -> str:
    parts = [] if calibration.temperature is None else [f"temperature {calibration.temperature:.4g}"]
    parts += [f"threshold of {name} {value:.4g}" for name, value in calibration.thresholds.items()]
    return ", ".join(parts)


def _blended(folders: Sequence[Path]) -> dict[str, float]:
    """Mean over the splits of the weight that their trials gave each head."""
    found = [json.loads((folder / WEIGHTS).read_text(encoding="utf-8")) for folder in folders]
    return {name: float(np.mean([weights[name] for weights in found])) for name in found[0]}


def _reached(run: Path) -> int:
    checkpoint = latest_checkpoint(run)
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))
