"""The exported encoder or classifier: a self-contained folder, without pickled code."""

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...shards.clip_spec import ClipSpec, plain_clip_spec
from ...shards.clips.application import Application, default_application, plain_application
from ...shards.errors import DataError, RequestError
from ..backbone import Backbone, encoder_spec
from ..classifier import Classifier
from ..encoders.weights import first_difference
from ..own_classes import check_allowed, is_path, package_of
from ..spec import BackboneSpec, EncoderSpec
from .bundle_files import CARD, FACTS, LAYOUTS, facts_path, local_bundle
from .bundle_limits import build_within, check_encoders, check_settings, read_json
from .hub import Repository, upload, without_paths
from .integrity import check_facts, check_files, seal
from .model_card import model_card

FORMAT_VERSION = 2
# What building a model from wrong facts raises, in modalgate, timm and torch.
BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)


@dataclass
class Bundle:
    """A model that is ready to use.

    model: a `Backbone`, or a `Classifier` if `task` is set.
    spec: how segments are prepared.
    segments: views averaged per clip.
    task: `action`, `violence` or `multilabel`; None for an encoder.
    positive: the violent class.
    provenance: what the model was made from (data, steps, command, versions), as plain values.
    metrics: measured metrics by name.
    licence: terms of use; None if they are not stated.
    application: how recordings are cut into pieces; default: `default_application`.
    """

    model: Backbone | Classifier
    spec: ClipSpec
    segments: int
    task: str | None = None
    positive: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    licence: str | None = None
    application: Application = field(default_factory=Application)

    def __post_init__(self) -> None:
        if not self.application.piece:
            self.application = default_application(self.spec, self.segments)

    @property
    def backbone(self) -> Backbone:
        return self.model.backbone if isinstance(self.model, Classifier) else self.model


def save_bundle(bundle: Bundle, folder: Path, repository: Repository | None = None) -> None:
    """Writes the bundle to `folder`.

    folder: new, empty, or a bundle to replace. An interrupted call never leaves an incomplete bundle there.
    repository: uses the file names that the hub expects, and describes how to load the bundle from this repository.

    Raises `RequestError` if `folder` has other content, and for a module whose class cannot be built again from its
    class path and its `arguments`.
    """
    facts_name, weights_name = list(LAYOUTS.items())[repository is not None]
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / FACTS).is_file())):
        raise RequestError(f"'{folder}' is not empty and not a bundle: give an empty or new folder for the bundle")
    _check_rebuilt(bundle)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        # Cloned, because safetensors refuses tensors that share memory, as heads trained as one do.
        state = {key: value.detach().cpu().contiguous().clone() for key, value in bundle.model.state_dict().items()}
        save_file(state, partial / weights_name)
        facts = describe_bundle(bundle)
        place = "this folder" if repository is None else str(repository)
        door = "load_bundle" if facts["classes"] else "load_encoder"
        packages = sorted({package_of(path) for path in own_paths(facts)})
        allow = f", allow={tuple(packages)!r}" if packages else ""
        loading = f'    from modalgate.fusion import {door}\n    model = {door}("{place}"{allow})'
        (partial / CARD).write_text(model_card(facts, loading), encoding="utf-8")
        sealed = seal(facts, partial, (weights_name, CARD))
        (partial / facts_name).write_text(json.dumps(sealed, indent=2) + "\n", encoding="utf-8")
        # The old bundle is moved aside first, so that a complete bundle is on the disk at any time.
        aside = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            os.replace(folder, aside)
        os.replace(partial, folder)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """The content of `encoder.json`, without sizes and digests."""
    backbone = bundle.backbone
    encoders = {n: asdict(encoder_spec(backbone.spec, n).untrained()) for n in backbone.modalities}
    classifier = bundle.model if isinstance(bundle.model, Classifier) else None
    if classifier is not None and classifier.decision_arguments:
        raise RequestError(
            f"a bundle stores no arguments of decision '{classifier.decision_name}': build the classifier without "
            f"{', '.join(classifier.decision_arguments)}"
        )
    return {
        "format_version": FORMAT_VERSION,
        "modalities": list(backbone.modalities),
        "backbone": asdict(backbone.spec) | {"width": backbone.width, "encoders": encoders},
        "clip": asdict(bundle.spec),
        "segments": bundle.segments,
        "application": asdict(replace(bundle.application, views=bundle.segments)),
        "task": bundle.task,
        "classes": list(classifier.classes) if classifier else None,
        "positive": bundle.positive,
        "multilabel": classifier is not None and classifier.multilabel,
        "unimodal_heads": classifier is not None and bool(classifier.unimodal),
        "decision": classifier.decision_name if classifier else None,
        "provenance": bundle.provenance,
        "metrics": bundle.metrics,
        "licence": bundle.licence,
    }


def own_paths(facts: dict[str, Any]) -> list[str]:
    """The class paths among the fusion, encoders and decision in a bundle's facts."""
    backbone = facts["backbone"]
    names = [backbone["fusion"], facts["decision"], *(entry["model"] for entry in backbone["encoders"].values())]
    return sorted({name for name in names if name and is_path(name)})


def _check_rebuilt(bundle: Bundle) -> None:
    """Raises `RequestError` if a class of another package cannot be built again with the same tensors."""
    backbone = bundle.backbone
    paths = own_paths(describe_bundle(bundle))
    for path in paths:
        if package_of(path) == "__main__" or "<locals>" in path:
            raise RequestError(
                f"class '{path}' cannot be imported elsewhere: define it at the top level of an importable module"
            )
    if paths:
        encoders = {name: encoder_spec(backbone.spec, name).untrained() for name in backbone.modalities}
        # Saving must not change the draws of a run that continues.
        with torch.random.fork_rng(devices=[]):
            again = Backbone(backbone.modalities, replace(backbone.spec, width=backbone.width, encoders=encoders))
        if reason := first_difference(again.state_dict(), backbone.state_dict()):
            raise RequestError(
                f"{' and '.join(paths)} cannot be built again with the same tensors ({reason}): give each module an "
                "attribute `arguments`, a dict of its constructor's arguments"
            )


def load_bundle(folder: Path | str, allow: Collection[str] = ()) -> Bundle:
    """Loads a bundle. The model is on the CPU, in evaluation mode.

    folder: a path, or `hf://owner/name[@revision]` on the hub.
    allow: packages whose classes the bundle may import. Without them, only code of modalgate runs.

    Sizes and sha256 of all files are checked before any file is used. The sender may be unknown: loading opens no
    other file and no address, builds only networks whose tensors are in the weights file, and does not change the
    global random state.

    Raises `RequestError` if the folder is not a bundle or has another format version, and for a class whose package
    is not installed or not allowed. Raises `DataError` if a file is missing, truncated or changed.
    """
    folder = local_bundle(folder)
    path = facts_path(folder)
    facts, weights_name = _read_facts(path), LAYOUTS[path.name]
    try:
        check_files(facts, folder)
        if set(facts["files"]) != {weights_name, CARD}:
            raise DataError(
                f"'{path}' lists {', '.join(facts['files'])}, not {weights_name} and {CARD}: export the run again"
            )
        own = own_paths(facts)
        check_allowed(own, allow, str(folder))
        check_settings(facts)
        spec = plain_clip_spec(facts["clip"])
        application = plain_application(facts.get("application"), spec, facts["segments"])
        backbone_spec = _backbone_spec(facts["backbone"])
        check_encoders({name: encoder_spec(backbone_spec, name) for name in facts["modalities"]})

        def build() -> Backbone | Classifier:
            backbone = Backbone(facts["modalities"], backbone_spec)
            if facts["classes"] is None:
                return backbone
            return Classifier(
                backbone,
                facts["classes"],
                unimodal=facts["unimodal_heads"],
                decision=facts["decision"],
                multilabel=facts.get("multilabel", False),
            )

        model = build_within(build, folder / weights_name, trusted=bool(own))
        model.load_state_dict(load_file(folder / weights_name))
        (model.backbone if isinstance(model, Classifier) else model).prepare_as(spec)
        return Bundle(
            model.eval(),
            spec,
            facts["segments"],
            facts["task"],
            facts["positive"],
            facts["provenance"],
            facts["metrics"],
            facts["licence"],
            application,
        )
    except BROKEN as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:400]
        raise DataError(f"bundle '{folder}' is damaged ({reason}): export the run again") from error


def push_bundle(
    folder: Path | str, repository: Repository, *, private: bool = True, allow: Collection[str] = ()
) -> str:
    """Commits a bundle to a model repository of the hub; returns the URL of the commit.

    folder: the bundle. It is checked first, and its card is rewritten to describe loading from the hub. Of local
        paths in its provenance and metrics, only the last names are published.
    repository: where to commit.
    private: makes a new repository private; False: public.
    allow: packages whose classes the bundle may import.

    Raises the errors of `load_bundle` and `hub.upload`.
    """
    bundle = load_bundle(folder, allow)
    bundle = replace(bundle, provenance=without_paths(bundle.provenance), metrics=without_paths(dict(bundle.metrics)))
    with TemporaryDirectory() as place:
        save_bundle(bundle, Path(place) / "bundle", repository)
        return upload(Path(place) / "bundle", repository, private=private)


def _read_facts(path: Path) -> dict[str, Any]:
    """Reads the facts at `path` and checks their format version and their digest."""
    try:
        facts = read_json(path)
        version = facts["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' is damaged ({error!r}): export the run again") from error
    if type(version) is not int:
        raise DataError(f"'{path}' is damaged (format_version is {version!r}, not a number): export the run again")
    if version > FORMAT_VERSION:
        raise RequestError(
            f"'{path}' has bundle format {version}, but this modalgate reads {FORMAT_VERSION}: install a newer "
            "modalgate"
        )
    if version < FORMAT_VERSION:
        raise RequestError(
            f"'{path}' has bundle format {version}, but this modalgate reads {FORMAT_VERSION}: train or export it "
            "again"
        )
    check_facts(facts, path)
    return facts


def count_parameters(module: nn.Module) -> int:
    """The number of parameters of a module.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in module.parameters())


def _backbone_spec(content: dict[str, Any]) -> BackboneSpec:
    # Facts may be forged: without `untrained`, an encoder would read a file or an address that they name.
    encoders = {name: EncoderSpec(**entry).untrained() for name, entry in content["encoders"].items()}
    plain: dict[str, Any] = content | {"encoders": encoders}
    return BackboneSpec(**plain)
