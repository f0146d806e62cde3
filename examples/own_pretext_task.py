"""Pretrain with your own pretext task: python examples/own_pretext_task.py SHARDS OUT.

SHARDS: a folder that `modalgate pack` wrote, with RGB. OUT: a new folder for the run.
"""

import sys
from collections.abc import Mapping, Sequence

import modalgate
import torch
import torch.nn.functional as F
from modalgate import PretextTask
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.views.views import Streams, View, one_segment, take_segments
from torch import Tensor, nn


def turn(streams: Streams, present: Streams, generator: torch.Generator) -> View:
    """One segment of every clip, rotated by 0, 90, 180 or 270 degrees."""
    segments = one_segment(present, generator)
    turns = torch.randint(4, (len(segments),), generator=generator)
    taken = take_segments(streams["rgb"], segments)
    turned = torch.stack([clip.rot90(int(number), (-2, -1)) for clip, number in zip(taken, turns, strict=True)])
    kept = {name: take_segments(mask, segments) for name, mask in present.items()}
    return View({"rgb": turned}, kept, segments, {"turns": turns.to(taken.device)})


class Rotation(PretextTask):
    """Predicts the rotation of the picture (Gidaris et al. 2018): four classes, a linear layer on the RGB feature."""

    views: Mapping = {"turn": turn}
    alone = True
    across_clips = False
    chance = 0.25

    def __init__(self, modalities: Sequence[str], width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 4)

    def forward(self, encoded: Mapping[str, Encoded], generator: torch.Generator) -> dict[str, Tensor]:
        view = encoded["turn"]
        there = view.present["rgb"][:, 0]
        logits, turns = self.head(view.features["rgb"][:, 0][there]), view.facts["turns"][there]
        if not len(turns):
            return {"loss": logits.sum()}
        return {"loss": F.cross_entropy(logits, turns), "accuracy": (logits.argmax(1) == turns).float().mean()}


def main(shards: str, out: str) -> None:
    tasks = {"own_pretext_task:Rotation": {"weight": 1.0}, "across_time": {"weight": 0.5}}
    settings = {"out": out, "name": "own_task", "tasks": tasks, "train.steps": 4, "data.batch_size": 4}
    done = modalgate.pretrain(shards, settings=settings | {"data.workers": 0, "wandb": "disabled"})
    print(f"accuracy {done.figures['Rotation/accuracy']:.3f}, chance {done.figures['Rotation/chance']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
