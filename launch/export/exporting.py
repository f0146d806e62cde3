"""A run's model as a bundle, checked against the run's own checkpoint."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from ...fusion.bundle.bundle_files import local_bundle
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.reliability import ReliabilityGate
from ...shards.batch import Clip, stack
from ...shards.errors import DataError
from ...shards.modality import modality
from ...shards.transforms import Preparation
from ...tasks.finetuning.early_stopping import BEST
from ..runs.bundles import find_model, steps_behind
from ..runs.recorded import recorded_metrics
from ..training.checkpoint import latest_checkpoint, load_checkpoint

# Prefix of the weights of the classifier that is used, in a checkpoint of cross-fitting.
WHOLE = "whole."


def export_bundle(run: Path, out: Path, licence: str | None = None) -> tuple[Bundle, float]:
    """Copies the model of `run` to `out`; returns it with the largest difference of its outputs after reloading.

    Its model card has the facts of `trained_bundle`, and the `licence` (an SPDX name such as CC-BY-4.0). Raises what
    `trained_bundle` and `save_bundle` raise, and `DataError` if the reloaded bundle computes something else.
    """
    bundle = trained_bundle(run)
    save_bundle(replace(bundle, licence=licence or bundle.licence), out)
    exported = load_bundle(out)
    difference = largest_difference(bundle.model, exported)
    if difference > 1e-6:
        raise DataError(
            f"the bundle in '{out}' differs from the model of '{run}' by {difference:.2g}: export it again"
        )
    return exported, difference


def trained_bundle(place: Path) -> Bundle:
    """The bundle at `place`, or the model of the run there (see `find_bundle`), with its measured figures.

    Of a run, its provenance names the weights: chosen by validation clips, else the moving average, else of the last
    step; of a run that was resumed later and has not ended, the step it is from. Raises `RequestError` for a folder
    without a finished run, and `DataError` if its model differs from its checkpoint.
    """
    path = find_model(place)
    bundle = load_bundle(path)
    run = path.parent
    if path == local_bundle(place):
        return bundle
    told = bundle.provenance | {"run": "/".join((place.name, *run.relative_to(place).parts))}
    checkpoint = latest_checkpoint(run)
    behind = steps_behind(path)
    if behind is not None:
        told["weights"] = f"of step {behind[0]}; the training was resumed later and has not ended"
    elif checkpoint is not None:
        told["weights"], state = _last_state(run, checkpoint)
        prefix = "classifier." if isinstance(bundle.model, Classifier) else "backbone."
        reference = load_bundle(path).model
        trained = {key.removeprefix(WHOLE): value for key, value in state.items()}
        trained = {key.removeprefix(prefix): value for key, value in trained.items() if key.startswith(prefix)}
        if isinstance(bundle.model, Classifier) and isinstance(bundle.model.decision, ReliabilityGate):
            # The gate is fitted after the last checkpoint.
            trained = {key: value for key, value in trained.items() if not key.startswith("decision.")}
            trained |= {f"decision.{key}": value for key, value in bundle.model.decision.state_dict().items()}
        reference.load_state_dict(trained)
        difference = largest_difference(reference, bundle)
        if difference > 1e-6:
            raise DataError(
                f"'{path}' differs from checkpoint '{checkpoint}' by {difference:.2g}: resume the training"
            )
    return replace(bundle, provenance=told, metrics=bundle.metrics or recorded_metrics(run))


def _last_state(run: Path, checkpoint: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """The final weights of the run, and their description."""
    step, weights, state = load_checkpoint(checkpoint)
    average = state.get("average") or {}
    best = run / BEST
    if best.is_file():
        chosen = {f"classifier.{key}": value for key, value in load_file(best).items()}
        return "of the step that validation clips chose" + (", moving average" if average else ""), chosen
    return f"moving average over {step} steps" if average else f"of step {step}, the last", weights | average


def largest_difference(reference: torch.nn.Module, exported: Bundle) -> float:
    """Largest absolute difference of all outputs on random clips, with every modality and with each one absent."""
    spec, modalities = exported.spec, exported.backbone.modalities
    generator = torch.Generator().manual_seed(0)
    full = {}
    for name in modalities:
        entry = modality(name)
        if entry.kind == "video":
            shape = (1, spec.frames, entry.channels, spec.size, spec.size)
            kind = torch.uint16 if entry.channels == 1 else torch.uint8
            full[name] = torch.randint(0, 255, shape, generator=generator).to(kind)
        elif entry.kind == "audio":
            full[name] = torch.rand((1, round(spec.seconds * spec.sample_rate)), generator=generator) - 0.5
        else:
            full[name] = torch.rand((1, round(spec.seconds * (entry.rate or 1)), entry.channels), generator=generator)
    clips = []
    for absent in (None, *(modalities if len(modalities) > 1 else ())):
        streams = {name: stream for name, stream in full.items() if name != absent}
        clips.append(Clip(streams, {name: name in streams for name in modalities}, "", torch.zeros(1), None))
    batch = stack(clips, seed=0)
    streams = Preparation(spec)(batch)
    with torch.no_grad():
        ours, theirs = (model.eval()(streams, batch.present, batch.start) for model in (reference, exported.model))
    if isinstance(exported.model, Classifier):
        return float((ours.logits - theirs.logits).abs().max())
    return float(max((ours.embedding - theirs.embedding).abs().max(), (ours.weights - theirs.weights).abs().max()))
