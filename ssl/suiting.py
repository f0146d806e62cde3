"""Restricts pretext tasks to the modalities of the clips."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..fusion.own_classes import is_path
from ..shards.modality import MODALITIES
from .pretext.base import PretextTask
from .tasks_by_name import PRETEXT_TASKS, task_class


@dataclass(frozen=True)
class Suited:
    """A task restricted to the modalities of the clips.

    arguments: of the task, without missing modalities.
    dropped: missing modalities.
    problem: why the task cannot be used; empty if it can.
    """

    arguments: dict[str, Any]
    dropped: list[str] = field(default_factory=list)
    problem: str = ""


def suit_task(name: str, arguments: dict[str, Any], modalities: Sequence[str]) -> Suited:
    """Removes missing modalities from the arguments of a task.

    name: a name of `PRETEXT_TASKS`, or a class path.
    arguments: of the task.
    modalities: modalities of the clips.

    Missing modalities are dropped from `streams`, and pairs with a missing modality from `pairs`. The task cannot be
    used if one of these is then empty, if its `anchor` is missing, if it compares modalities and there is only one,
    or if no modality has the kind it needs. An unknown modality is kept: the constructor of the task rejects it.

    >>> suit_task("cross_modal", {"pairs": [["rgb", "audio"], ["rgb", "depth"]]}, ["rgb", "audio"])
    Suited(arguments={'pairs': [['rgb', 'audio']]}, dropped=['depth'], problem='')
    """
    there = ", ".join(modalities)
    task = task_class(name) if name in PRETEXT_TASKS or is_path(name) else PretextTask
    kind = task.kind
    if task is not PretextTask and not task.alone and len(modalities) < 2:
        return Suited(arguments, problem=f"it compares modalities, and there is only {there}")
    if kind and not any(MODALITIES[other].kind == kind for other in modalities):
        return Suited(arguments, problem=f"it needs {kind}, and there is only {there}")
    suited, dropped = dict(arguments), dict[str, None]()

    def missing(entry: Any) -> list[str]:
        names = entry if isinstance(entry, list | tuple) else [entry]
        return [n for n in names if isinstance(n, str) and n in MODALITIES and n not in modalities]

    for key in ("streams", "pairs"):
        given = arguments.get(key)
        if not isinstance(given, list | tuple) or not given:
            continue
        kept = [entry for entry in given if not missing(entry)]
        dropped |= dict.fromkeys(name for entry in given for name in missing(entry))
        if not kept:
            return Suited(arguments, list(dropped), f"its {key} have only {', '.join(dropped)}")
        suited[key] = kept
    anchor = arguments.get("anchor")
    if missing(anchor):
        return Suited(arguments, missing(anchor), f"its anchor is '{anchor}'")
    return Suited(suited, list(dropped))
