"""The names of pretext tasks, fusions and their arguments in a config."""

from typing import Any

from omegaconf import MISSING, OmegaConf

from ...fusion.mechanisms_by_name import check_fusion, fusions_at
from ...fusion.own_classes import is_path
from ...shards.errors import RequestError, choice_error
from ...ssl.tasks_by_name import check_task
from ..schema import Config
from .config_keys import join


def check_names(config: Config) -> None:
    """Raises `RequestError`, with the key and the nearest choice, for an unknown task, fusion or argument.

    `config` may be partial: missing keys are skipped.
    """
    content: Any = OmegaConf.to_container(OmegaConf.create(config), resolve=True)  # pyright: ignore
    for name, task in (content.get("tasks") or {}).items():
        _at(f"tasks.{name}", check_task, name, task["arguments"])
    _check_fusions("model", content.get("model") or {}, "fusion_arguments")
    for name, row in (content.get("rows") or {}).items():
        _check_fusions(f"rows.{name}", row, "arguments")
    if (decision := content.get("decision")) is not None:
        _check_decision(decision)


def _check_fusions(key: str, section: dict[str, Any], arguments: str) -> None:
    name = section.get("fusion", MISSING)
    if name != MISSING:
        _at(join(key, "fusion"), check_fusion, name, section[arguments])


def _check_decision(name: str) -> None:
    if is_path(name):
        _at("decision", check_fusion, name, {})
    if not is_path(name) and name not in fusions_at("decision"):
        raise choice_error("value for config key 'decision'", name, fusions_at("decision"))


def _at(key: str, check: Any, name: str, arguments: dict[str, Any]) -> None:
    try:
        check(name, arguments)
    except RequestError as error:
        raise RequestError(f"config key '{key}': {error}") from error
