"""The pretext tasks by name."""

from collections.abc import Collection, Sequence
from inspect import signature
from typing import Any

from ..fusion.own_classes import is_path, load_class
from ..shards.clip_spec import ClipSpec
from ..shards.errors import RequestError, choice_error
from .pretext.base import PretextTask
from .pretext.clustering import SwappedAssignments
from .pretext.contrastive import AcrossTime, CrossModal, LeaveOneOut
from .pretext.correspondence import Correspondence, Offset, Synchrony
from .pretext.direction import ArrowOfTime, Pace
from .pretext.gate_denoising import GateDenoising
from .pretext.masked import ContrastiveMasked, MaskedLatent
from .pretext.negative_free import BarlowTwins, Byol, CrissCross, LeJepa, VicReg
from .pretext.order import ClipOrder, FrameOrder, OddOneOut, OrderVerification
from .pretext.queue import Agreement, MomentumQueue
from .pretext.simclr import SimClr
from .pretext.transformations import Gdt

PRETEXT_TASKS: dict[str, type[PretextTask]] = {
    "correspondence": Correspondence,
    "synchrony": Synchrony,
    "offset": Offset,
    "clip_order": ClipOrder,
    "order_verification": OrderVerification,
    "frame_order": FrameOrder,
    "odd_one_out": OddOneOut,
    "arrow_of_time": ArrowOfTime,
    "pace": Pace,
    "cross_modal": CrossModal,
    "across_time": AcrossTime,
    "leave_one_out": LeaveOneOut,
    "momentum_queue": MomentumQueue,
    "agreement": Agreement,
    "simclr": SimClr,
    "gdt": Gdt,
    "vicreg": VicReg,
    "barlow_twins": BarlowTwins,
    "byol": Byol,
    "crisscross": CrissCross,
    "lejepa": LeJepa,
    "swapped_assignments": SwappedAssignments,
    "masked_latent": MaskedLatent,
    "contrastive_masked": ContrastiveMasked,
    "gate_denoising": GateDenoising,
}
# Constructor arguments that are set from the backbone and the clips.
GIVEN = ("modalities", "width", "segments", "seconds")


def task_class(name: str) -> type[PretextTask]:
    """The class of a task.

    name: a name of `PRETEXT_TASKS`, or a class path `package.module:Class` to import.

    Raises `RequestError` for an unknown name, and for a class that cannot be imported or is not a `PretextTask`.
    """
    if is_path(name):
        return load_class(name, PretextTask, "pretext task")
    if name not in PRETEXT_TASKS:
        raise choice_error("pretext task", name, PRETEXT_TASKS)
    return PRETEXT_TASKS[name]


def check_task(name: str, arguments: Collection[str]) -> None:
    """Raises `RequestError` for an unknown task, and for an argument that the task does not have."""
    known = set(signature(task_class(name)).parameters) - set(GIVEN)
    for argument in arguments:
        if argument not in known:
            raise choice_error(f"argument of task {name}", argument, known)


def build_pretext_task(
    name: str,
    modalities: Sequence[str],
    width: int,
    segments: int,
    arguments: dict[str, Any],
    spec: ClipSpec | None = None,
) -> PretextTask:
    """Builds a task.

    name: a name of `PRETEXT_TASKS`, or a class path.
    modalities: of the backbone.
    width: D, the length of a feature.
    segments: windows per clip.
    arguments: further arguments of the task.
    spec: gives the length of a segment in seconds, for tasks that need it.

    Raises `RequestError` for an unknown name or argument, for a task that compares modalities if there is only one,
    and for a task that needs distances in seconds if segments are stretched.
    """
    check_task(name, arguments)
    kind = task_class(name)
    parameters = signature(kind).parameters
    given = {"segments": segments, "seconds": 0.0 if spec is None else spec.seconds}
    if not kind.alone and len(modalities) < 2:
        raise RequestError(f"task '{name}' compares modalities: give at least two, not {', '.join(modalities)}")
    if "seconds" in parameters and spec is not None and spec.stretch:
        raise RequestError(f"task '{name}' needs distances in seconds: set data.stretch=0, or drop the task")
    extra = {key: value for key, value in given.items() if key in parameters}
    return kind(modalities, width, **extra, **arguments)
