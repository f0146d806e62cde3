"""The names of pretext tasks, fusions, networks and their arguments in a config."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING, OmegaConf

from ...fusion.encoders.encoders import build_encoder
from ...fusion.mechanisms_by_name import check_fusion, fusions_at
from ...fusion.own_classes import is_path
from ...fusion.spec import BackboneSpec, EncoderSpec, encoder_of
from ...shards.errors import RequestError, choice_error
from ...shards.modality import MODALITIES
from ...ssl.tasks_by_name import check_task
from ..schema import Config
from .config_keys import join


def check_names(config: Config) -> None:
    """Raises `RequestError`, with the key and the nearest choice, for an unknown task, fusion, network or argument.

    `config` may be partial: missing keys are skipped. Published weights are not read.
    """
    content: Any = OmegaConf.to_container(OmegaConf.create(config), resolve=True)  # pyright: ignore
    for name, task in (content.get("tasks") or {}).items():
        _at(f"tasks.{name}", check_task, name, task["arguments"])
    _check_fusions("model", content.get("model") or {}, "fusion_arguments")
    for name, row in (content.get("rows") or {}).items():
        _check_fusions(f"rows.{name}", row, "arguments")
    if (decision := content.get("decision")) is not None:
        _check_decision(decision)
    if content.get("model") and not content.get("encoder"):
        model: Any = OmegaConf.to_object(OmegaConf.create(config).model)  # pyright: ignore
        for key in {**model.encoders, **dict.fromkeys(content["data"]["modalities"])}:
            _at(f"model.encoders.{key}", _check_network, model, key)


def _check_network(model: BackboneSpec, key: str) -> None:
    """Builds the encoder of a modality or of a kind (`video`, `audio`, `signal`)."""
    entry = MODALITIES.get(key) or next(entry for entry in MODALITIES.values() if entry.kind == key)
    spec = encoder_of(model, key)
    if spec.weights and not Path(spec.weights).is_file():
        raise RequestError(f"no weights file at '{spec.weights}'")
    # Without weights: they may have to be downloaded. Own classes may compute with their tensors, which needs values.
    with torch.device("cpu" if is_path(spec.resolved().model) else "meta"):
        build_encoder(entry, unpublished(replace(spec, weights=None)))


def unpublished(spec: EncoderSpec) -> EncoderSpec:
    """`spec` without published weights; a local file stays."""
    return replace(spec.untrained(), weights=spec.weights)


def _check_fusions(key: str, section: dict[str, Any], arguments: str) -> None:
    name = section.get("fusion", MISSING)
    if name != MISSING:
        _at(join(key, "fusion"), check_fusion, name, section[arguments])


def _check_decision(name: str) -> None:
    if is_path(name):
        _at("decision", check_fusion, name, {})
    if not is_path(name) and name not in fusions_at("decision"):
        raise choice_error("value for config key 'decision'", name, fusions_at("decision"))


def _at(key: str, check: Any, *given: Any) -> None:
    try:
        check(*given)
    except RequestError as error:
        raise RequestError(f"config key '{key}': {error}") from error
