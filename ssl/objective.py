"""Self-supervised training as one objective: encode once per view, sum the tasks' losses."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..fusion.backbone import Backbone, Encoded
from ..shards.batch import Batch
from ..shards.errors import RequestError
from ..shards.transforms import AugmentConfig, ClipSpec, Preparation
from .monitors import collapse_warnings, monitors
from .registry import build_task

# A view is a function of the prepared streams; the union of the tasks' views is encoded once and shared.
VIEWS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {"plain": lambda streams: streams}


class PretextObjective(nn.Module):
    """A weighted mixture of pretext tasks over one backbone.

    `tasks`: name -> (weight, arguments). `forward(batch)` returns `<task>/loss`, `<task>/accuracy`, the fusion's own
    `gate/loss`, and what `monitors` watches. The loop sums the losses by `weights`.
    """

    def __init__(
        self,
        backbone: Backbone,
        spec: ClipSpec,
        segments: int,
        tasks: Mapping[str, tuple[float, dict[str, Any]]],
        augment: AugmentConfig | None,
    ) -> None:
        super().__init__()
        if not tasks:
            raise RequestError("no pretext task: give at least one under 'tasks'")
        self.backbone = backbone
        self.preparation = Preparation(spec)
        self.augment = augment
        self.tasks = nn.ModuleDict(
            {
                name: build_task(name, backbone.modalities, backbone.width, segments, arguments)
                for name, (_, arguments) in tasks.items()
            }
        )
        self.weights = {f"{name}/loss": weight for name, (weight, _) in tasks.items()}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        streams = self.preparation(batch, self.augment if self.training else None)
        views = sorted({view for task in self.tasks.values() for view in task.views})  # pyright: ignore
        encoded: dict[str, Encoded] = {
            view: self.backbone(VIEWS[view](streams), batch.present, batch.start) for view in views
        }
        # On the CPU whatever the device, so that a run draws the same everywhere.
        generator = torch.Generator().manual_seed(batch.seed)
        outputs: dict[str, Tensor] = {}
        for name, task in self.tasks.items():
            outputs |= {f"{name}/{key}": value for key, value in task(encoded, generator).items()}
        outputs["gate/loss"] = torch.stack([e.aux_loss for e in encoded.values()]).mean()
        return outputs | monitors(encoded["plain"])

    def warnings(self, means: Mapping[str, float]) -> list[str]:
        """What the logged `means` warn of."""
        return collapse_warnings(means, self.backbone.width)
