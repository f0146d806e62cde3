"""The pretext tasks by name."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

from ..shards.errors import RequestError, choice_error
from .contrastive import AcrossTime, CrossModal
from .correspondence import Correspondence
from .order import ClipOrder
from .pretext import PretextTask

PRETEXT_TASKS: dict[str, type[PretextTask]] = {
    "across_time": AcrossTime,
    "clip_order": ClipOrder,
    "correspondence": Correspondence,
    "cross_modal": CrossModal,
}


def build_task(
    name: str, modalities: Sequence[str], width: int, segments: int, arguments: dict[str, Any]
) -> PretextTask:
    """The task `name` over features of `width`; `RequestError` for an unknown name or argument.

    A task that compares modalities needs two of them.
    """
    if name not in PRETEXT_TASKS:
        raise choice_error("pretext task", name, PRETEXT_TASKS)
    parameters = signature(PRETEXT_TASKS[name]).parameters
    known = set(parameters) - {"modalities", "width", "segments"}
    for argument in arguments:
        if argument not in known:
            raise choice_error(f"argument of task {name}", argument, known)
    if name in ("correspondence", "cross_modal") and len(modalities) < 2:
        raise RequestError(f"task '{name}' compares modalities: give at least two, not {', '.join(modalities)}")
    extra = {"segments": segments} if "segments" in parameters else {}
    return PRETEXT_TASKS[name](modalities, width, **extra, **arguments)
