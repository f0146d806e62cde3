"""`export`: a run's model as a bundle, checked against the run's own checkpoint."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..fusion.bundle import LAYOUTS, Bundle, load_bundle, local_bundle, save_bundle
from ..fusion.classifier import Classifier
from ..shards.batch import Clip, stack
from ..shards.errors import DataError, RequestError
from ..shards.modality import modality
from ..shards.transforms import Preparation
from ..tasks.stopping import BEST
from .checkpoint import latest_checkpoint, load_checkpoint
from .recorded import recorded_metrics


def export_bundle(run: Path, out: Path, licence: str | None = None) -> tuple[Bundle, float]:
    """Copies RUN/encoder to `out` and returns it with the largest difference of outputs, reloaded against the run's.

    Its model card tells what the run's evaluations measured, and the `licence` (an SPDX name such as CC-BY-4.0).
    Raises `RequestError` for a folder that holds no finished run, and `DataError` where the reloaded bundle does not
    compute what the run's best state does, if it was stopped by one, or else its newest checkpoint.
    """
    trained = _trained(run)
    bundle = load_bundle(trained)
    checkpoint = latest_checkpoint(run)
    if checkpoint is not None:
        prefix = "classifier." if isinstance(bundle.model, Classifier) else "backbone."
        reference = load_bundle(trained).model
        reference.load_state_dict(_final_state(run, checkpoint, prefix))
    else:
        reference = bundle.model
    told = {"provenance": bundle.provenance | {"run": run.name}, "metrics": recorded_metrics(run)}
    save_bundle(replace(bundle, licence=licence or bundle.licence, **told), out)
    exported = load_bundle(out)
    difference = largest_difference(reference, exported)
    if difference > 1e-6:
        raise DataError(
            f"the bundle in '{out}' differs from checkpoint '{checkpoint}' by {difference:.2g}: train again"
        )
    return exported, difference


def _final_state(run: Path, checkpoint: Path, prefix: str) -> dict[str, torch.Tensor]:
    """What the run ended with: the state that validation clips chose, else averaged weights, else the last ones."""
    best = run / BEST
    if best.is_file():
        return load_file(best)
    _, weights, state = load_checkpoint(checkpoint)
    weights |= state.get("average") or {}
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def find_model(path: Path) -> Path:
    """The bundle at `path` or on the hub, or the one of the run there; `RequestError` where there is none."""
    path = local_bundle(path)
    return path if any((path / name).is_file() for name in LAYOUTS) else _trained(path)


def _trained(run: Path) -> Path:
    if not run.is_dir():
        raise RequestError(f"no run folder at '{run}'")
    if not (run / "encoder").is_dir():
        folds = sorted(folder.parent.name for folder in run.glob("fold-*/encoder"))
        hint = f"give one of its folds, such as {run / folds[0]}" if folds else "has its training finished?"
        raise RequestError(f"'{run}' holds no trained model: {hint}")
    return run / "encoder"


def largest_difference(reference: torch.nn.Module, exported: Bundle) -> float:
    """Largest absolute difference of all outputs on random clips, with every modality and with each one absent."""
    spec, modalities = exported.spec, exported.backbone.modalities
    generator = torch.Generator().manual_seed(0)
    full = {}
    for name in modalities:
        entry = modality(name)
        if entry.kind == "video":
            shape = (1, spec.frames, entry.channels, spec.size, spec.size)
            kind = torch.uint16 if name == "depth" else torch.uint8
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
