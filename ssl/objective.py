"""The objective of self-supervised training: encodes each view once and computes the losses of all tasks."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..fusion.backbone import Backbone, Encoded, Part
from ..shards.batch import Batch
from ..shards.clip_spec import ClipSpec
from ..shards.errors import RequestError
from ..shards.transforms import AugmentConfig, Preparation
from .gather import gather_encoded, joined_gate_loss
from .monitors import GRADIENT_EVERY, gate_gradient, joint_norm, monitors, segment_difference
from .pretext.base import FUSED, PLAIN, TEACHER, WITHOUT, PretextTask
from .schedule import Schedule
from .tasks_by_name import build_pretext_task
from .teacher import Teacher
from .verdicts import PRETRAINING, Means, collapse_warnings, gate_warnings, segment_warnings, task_warnings
from .views.segment_summary import summarise
from .views.views import ViewFunction, take_segments

# Segments are compared in this number of batches at the start of a run.
COMPARED_BATCHES = 10


# A weight, with the arguments of a task or with a task.
Weighted = tuple[float, dict[str, Any] | PretextTask]


class PretextObjective(nn.Module):
    """A weighted mixture of pretext tasks over one backbone.

    backbone: encodes the segments.
    spec: how segments are prepared.
    segments: windows per clip.
    tasks: by name or class path: (weight, arguments) to build the task, (weight, task), or a task (weight 1).
    augment: how training batches are augmented; None: no augmentation.
    batches: number of batches of the run, for schedules and moving averages.
    schedules: of the task weights, by name.

    `forward(batch)` returns by name:

    <task>/loss, <task>/accuracy, <task>/chance: of each task; accuracy and chance only if the task has them.
    <task>/gradient: norm of the gradient of the weighted loss with respect to the features, in some batches.
    <task>/segment_difference: see `segment_difference`; in the first batches, for tasks on the order of segments.
    fusion/gradient: see `gate_gradient`; in some batches.
    gate/loss: auxiliary loss of the fusion, see `joined_gate_loss`.
    gate/..., embedding/..., fusion/spread: see `monitors`.

    The training loop sums the losses weighted by `weights`, which follow the schedules. The name of a task given by a
    class path is its class.

    Each view that tasks read is encoded once: `plain`, the clip itself; altered views, of which only the changed
    streams are encoded; `without_<modality>`, fused with the modality hidden; `teacher`, the clip encoded by a moving
    average of the backbone. With several processes, tasks read the joined batch.

    Raises `RequestError` without tasks, for two tasks or two different views of the same name, and if the frames of a
    view cannot be divided into the stacks of an encoder.
    """

    batches_seen: Tensor

    def __init__(
        self,
        backbone: Backbone,
        spec: ClipSpec,
        segments: int,
        tasks: Mapping[str, Weighted | PretextTask],
        augment: AugmentConfig | None = None,
        batches: int = 0,
        schedules: Mapping[str, Schedule] | None = None,
    ) -> None:
        super().__init__()
        if not tasks:
            raise RequestError("no pretext task given: give at least one under 'tasks'")
        self.backbone = backbone
        self.preparation = Preparation(spec)
        self.augment = augment
        self.batches = batches
        built: dict[str, PretextTask] = {}
        self._weights: dict[str, float] = {}
        for given, entry in tasks.items():
            weight, task = (1.0, entry) if isinstance(entry, PretextTask) else entry
            if not isinstance(task, PretextTask):
                task = build_pretext_task(given, backbone.modalities, backbone.width, segments, task, spec)
            name = task_label(given)
            if name in built:
                raise RequestError(f"two pretext tasks have the name '{name}': rename one of the classes")
            built[name], self._weights[name] = task, weight
        self.tasks = nn.ModuleDict(built)
        self.views = _joined_views(built)
        self.hidden = list(dict.fromkeys(name for task in built.values() for name in task.without))
        _check_frames(backbone, spec.frames, built)
        self.teacher = Teacher(backbone) if any(task.teacher for task in built.values()) else None
        self._schedules = {task_label(name): schedule for name, schedule in (schedules or {}).items()}
        self.weights = {f"{name}/loss": weight for name, weight in self._weights.items()}
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        progress = int(self.batches_seen) / max(self.batches, 1)
        measure = self.training and int(self.batches_seen) % GRADIENT_EVERY == 0
        if self.training:
            if self.teacher is not None and int(self.batches_seen):
                self.teacher.update(self.backbone, progress, int(self.batches_seen))
            self.batches_seen += 1
        here = self._encode(batch)
        encoded = gather_encoded(here)
        # All ranks compute the loss of the joined batch, so all draw with the seed of the first rank. On the CPU the
        # draws do not depend on the device.
        generator = torch.Generator().manual_seed(int(encoded[PLAIN].facts["seed"][0]))
        plain = encoded[PLAIN]
        outputs: dict[str, Tensor] = {}
        for name, task in self.tasks.items():
            assert isinstance(task, PretextTask)
            weight = self._weights[name]
            if name in self._schedules:
                weight *= self._schedules[name].share(progress)
            self.weights[f"{name}/loss"] = weight
            task.progress = progress
            found = task(encoded, generator)
            if "accuracy" in found and task.chance is not None:
                found.setdefault("chance", found["accuracy"].new_tensor(task.chance))
            outputs |= {f"{name}/{key}": value for key, value in found.items()}
            if measure:
                outputs[f"{name}/gradient"] = _gradient_norm(weight * outputs[f"{name}/loss"], plain)
        if measure:
            total = torch.stack([self.weights[f"{name}/loss"] * outputs[f"{name}/loss"] for name in self.tasks]).sum()
            gradient = gate_gradient(total, self.backbone.fusion, here[PLAIN].embedding)
            outputs |= {} if gradient is None else {"fusion/gradient": gradient}
        if self.training and int(self.batches_seen) <= COMPARED_BATCHES:
            outputs |= self._segment_differences(batch)
        # The teacher is not trained.
        outputs["gate/loss"] = joined_gate_loss([view for name, view in here.items() if name != TEACHER])
        return outputs | monitors(here[PLAIN])

    def warnings(self, means: Mapping[str, float]) -> list[str]:
        """Warnings during training, from the logged `means`."""
        return [*segment_warnings(means), *collapse_warnings(means, self.backbone.width, PRETRAINING)]

    def verdict(self, lines: Sequence[Means]) -> list[str]:
        """Warnings at the end of a run, from all logged `lines`."""
        over = [name for name in self.tasks if not self.weights[f"{name}/loss"]]
        return [*task_warnings(lines, over), *gate_warnings(lines, PRETRAINING)]

    def _segment_differences(self, batch: Batch) -> dict[str, Tensor]:
        """`segment_difference` in the streams of each task that predicts the order of segments."""
        found = {}
        for name, task in self.tasks.items():
            if task.orders_segments:
                read = self.backbone.modalities if FUSED in task.streams else task.streams  # pyright: ignore
                streams = {source: batch.streams[source] for source in read if source in batch.streams}  # pyright: ignore
                difference = segment_difference(streams, batch.present)
                found |= {} if difference is None else {f"{name}/segment_difference": difference}
        return found

    def _encode(self, batch: Batch) -> dict[str, Encoded]:
        """Encodes all views of the clips of this process."""
        streams = self.preparation(batch, self.augment if self.training else None)
        present, start, backbone = batch.present, batch.start, self.backbone
        generator = torch.Generator().manual_seed(batch.seed)
        parts = {name: backbone.encode(name, streams.get(name), present[name]) for name in backbone.modalities}
        quality = backbone.quality_of(streams, present)
        plain = backbone.fuse(parts, present, start, quality)
        plain.facts["clip"] = torch.tensor([zlib.crc32(key.encode()) for key in batch.key], device=start.device)
        plain.facts["seed"] = torch.full((len(batch.key),), batch.seed, device=start.device)
        if any(task.reads_summary for task in self.tasks.values()):  # pyright: ignore[reportAttributeAccessIssue]
            plain.facts |= {f"summary/{name}": summarise(stream) for name, stream in streams.items()}
        encoded = {PLAIN: plain}
        for name, function in self.views.items():
            encoded[name] = self._altered(function, streams, parts, batch, generator)
        for name in self.hidden:
            encoded[f"{WITHOUT}{name}"] = backbone.fuse(parts, present, start, quality, hidden=(name,))
        if self.teacher is not None:
            with torch.no_grad():
                encoded[TEACHER] = self.teacher.backbone(streams, present, start, quality)
        return encoded

    def _altered(
        self,
        function: ViewFunction,
        streams: dict[str, Tensor],
        parts: dict[str, Part],
        batch: Batch,
        generator: torch.Generator,
    ) -> Encoded:
        """Encodes a view: changed streams are encoded, the others keep their features."""
        backbone = self.backbone
        view = function(streams, batch.present, generator)
        altered = {}
        for modality, part in parts.items():
            if modality in view.streams:
                altered[modality] = backbone.encode(modality, view.streams[modality], view.present[modality])
                continue
            tokens = None if part.tokens is None else take_segments(part.tokens, view.segments)
            altered[modality] = Part(take_segments(part.features, view.segments), tokens)
        taken = {m: view.streams.get(m, take_segments(stream, view.segments)) for m, stream in streams.items()}
        quality = backbone.quality_of(taken, view.present)
        encoded = backbone.fuse(altered, view.present, take_segments(batch.start, view.segments), quality)
        encoded.facts |= view.facts | {"segments": view.segments.to(batch.start.device)}
        return encoded


def task_label(name: str) -> str:
    """The name of a task in logs and checkpoints; for a class path, the class.

    >>> task_label("clip_order"), task_label("mypackage.tasks:Mine")
    ('clip_order', 'Mine')
    """
    return name.rpartition(":")[2]


def _joined_views(tasks: Mapping[str, PretextTask]) -> dict[str, ViewFunction]:
    """The views of all tasks. Raises `RequestError` if two different views have the same name."""
    found: dict[str, ViewFunction] = {}
    for name, task in tasks.items():
        for view, function in task.views.items():
            if view in (PLAIN, TEACHER) or view.startswith(WITHOUT):
                raise RequestError(f"task '{name}' has a view with the reserved name '{view}': rename the view")
            if found.setdefault(view, function) is not function:
                raise RequestError(f"two tasks have different views named '{view}': rename that of task '{name}'")
    return found


def _check_frames(backbone: Backbone, frames: int, tasks: Mapping[str, PretextTask]) -> None:
    """Raises `RequestError` if the frames of a view cannot be divided into the stacks of an encoder."""
    rates = {PLAIN: 1} | {view: task.frames_per for task in tasks.values() for view in task.views}
    for name, encoder in backbone.encoders.items():
        stack = getattr(encoder, "stack", 0)
        for view, rate in rates.items():
            if stack and (frames < rate or frames // rate % stack):
                raise RequestError(
                    f"data.frames of {frames} gives {frames // rate} frames of {name} in the view '{view}', which "
                    f"cannot be divided into stacks of {stack}: give a multiple of {stack * rate}"
                )


def _gradient_norm(loss: Tensor, plain: Encoded) -> Tensor:
    """Norm of the gradient of a task's loss with respect to the features and the fused embedding."""
    shared = [tensor for tensor in (*plain.features.values(), plain.embedding) if tensor.requires_grad]
    return joint_norm(torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True), loss)
