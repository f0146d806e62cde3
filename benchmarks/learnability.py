"""Does every pretext task learn its question, and only from the cue it means to teach?

    .venv/bin/python benchmarks/learnability.py FOLDER [--tasks clip_order,synchrony] [--clips 1600] [--json FILE]

A generated world (`solo`) and its twins, each without one cue, are written and packed under FOLDER where they are not
there yet. Each task trains on its own, a small encoder from random weights, on the splits `pretrain` and `train`; its
accuracy is then taken on the held-out clips, and again after the same training on the twin without its cue. Printed:
chance, the held-out accuracy, the twin's, and the twin's distance from chance in standard errors. A row that the JSON
file holds already is not run again.
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from held import Held
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.launch.building import clip_request, clip_spec
from modalgate.launch.schema import DataConfig, TrainConfig
from modalgate.launch.train import train
from modalgate.shards.augment import AugmentConfig
from modalgate.shards.index import PackSettings, load_index
from modalgate.shards.pack import pack
from modalgate.shards.world import write_world
from modalgate.ssl.objective import PretextObjective
from modalgate.ssl.registry import PRETEXT_TASKS
from modalgate.tasks.splits import given_split, take

BATCH = 32
VIDEO = EncoderSpec(model="timm/test_resnet", stack=8, pooling="gru")
FPS = 16.0
AUDIO = EncoderSpec("timm/test_resnet", pooling="gru")


@dataclass(frozen=True)
class Row:
    """A task as it is tried: `segments` of `seconds`, its arguments, the twin without its cue, steps of its own."""

    arguments: dict[str, Any] = field(default_factory=dict)
    segments: int = 3
    seconds: float = 1.0
    twin: str = ""
    modalities: tuple[str, ...] = ("rgb", "flow", "depth", "audio")
    steps: int | None = None

    @property
    def frames(self) -> int:
        """Of a segment: as many whole stacks of the encoder as its seconds hold frames for."""
        return int(self.seconds * FPS) // VIDEO.stack * VIDEO.stack


# Three segments of a second are the three seconds of a clip, as the twin without order cuts them; a rhythm takes
# windows of more than a period to hear.
LONG: dict[str, Any] = {"segments": 2, "seconds": 1.4}
# Depth would not do: it drifts one way through a clip, and sound begins with silence. Both tell the place in the
# clip, which goes together without any synchrony; the twin shows it.
SOUND: dict[str, Any] = {"twin": "synchrony", "modalities": ("flow", "audio"), "steps": 900, **LONG}
ROWS = {name: Row() for name in PRETEXT_TASKS} | {
    # Solo's picture and sound share the rhythm alone: there are no easy negatives to start with.
    "synchrony": Row({"hard": 1.0, "easy_until": 0.0}, **SOUND),
    "offset": Row(**SOUND),
    # Guessing finds one of so many rows, and not of thousands.
    "momentum_queue": Row({"size": 64}),
    "agreement": Row({"size": 64}),
    "clip_order": Row({"streams": ["depth"], "dropout": 0.1}, twin="order", modalities=("depth",)),
    "order_verification": Row({"streams": ["depth"], "dropout": 0.1}, twin="order", modalities=("depth",)),
    "frame_order": Row({"streams": ["depth"], "dropout": 0.1}, twin="order", modalities=("depth",)),
    "odd_one_out": Row({"streams": ["depth"], "dropout": 0.1}, segments=4, seconds=0.75, modalities=("depth",)),
    "arrow_of_time": Row({"streams": ["depth"]}, twin="direction", modalities=("depth",), **LONG),
    "pace": Row({"streams": ["rgb", "depth"]}, twin="pace", modalities=("rgb", "depth"), **LONG),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default=",".join(ROWS))
    parser.add_argument("--clips", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else {}
    for name in arguments.tasks.split(","):
        if name not in found:
            found[name] = measure(name, ROWS[name], arguments)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        row = found[name]
        twin = "" if row["twin"] is None else f"  twin {row['twin']:.3f} ({row['twin_errors']:+.1f} errors)"
        print(f"{name:20} chance {row['chance']:.4f}  held out {row['accuracy']:.3f}{twin}  {row['seconds']:.0f} s")


def measure(name: str, row: Row, arguments: argparse.Namespace) -> dict[str, float | None]:
    """The row's held-out accuracy, on the world and on its twin."""
    began = time.perf_counter()
    accuracy, chance, _ = learn(name, row, corpus(arguments, ""), arguments)
    seconds = time.perf_counter() - began
    twin = errors = None
    if row.twin:
        twin, chance, rows = learn(name, row, corpus(arguments, row.twin), arguments)
        errors = (twin - chance) / math.sqrt(chance * (1 - chance) / rows)
    return {"chance": chance, "accuracy": accuracy, "seconds": seconds, "twin": twin, "twin_errors": errors}


def corpus(arguments: argparse.Namespace, twin: str) -> Path:
    """Shards of the world or of one of its twins."""
    shards = arguments.folder / (twin or "plain")
    if not (shards / "index.json").is_file():
        world = arguments.folder / f"world-{twin or 'plain'}"
        write_world(world, "solo", arguments.clips, seed=1, twin=twin)
        pack(world, shards, PackSettings(modalities=("rgb", "flow", "audio", "depth"), size=48, fps=FPS))
    return shards


def learn(name: str, row: Row, shards: Path, arguments: argparse.Namespace) -> tuple[float, float, int]:
    """Held-out accuracy after training, what guessing reaches, and how many clips the accuracy is of."""
    index = load_index(shards)
    data = DataConfig(modalities=list(row.modalities), segments=row.segments, seconds=row.seconds, frames=row.frames)
    request = clip_request(data, index)
    split = given_split(index, "pretrain+train", "test")
    steps = row.steps or arguments.steps
    torch.manual_seed(0)
    backbone = Backbone(row.modalities, BackboneSpec(width=64, encoders={"video": VIDEO, "audio": AUDIO}))
    objective = PretextObjective(
        backbone,
        clip_spec(request, index),
        row.segments,
        {name: (1.0, row.arguments)},
        AugmentConfig(crop_scale=0.9),
        steps,
    )
    stream = Held(take(index, split.train), request, BATCH)
    budget = TrainConfig(
        steps=steps, learning_rate=3e-3, log_every=50, checkpoint_every=10**6, threads=arguments.threads
    )
    with tempfile.TemporaryDirectory() as scratch:
        train(objective, stream, budget, Path(scratch) / "run", tracker_mode="disabled")
    held_out = take(index, sorted([*split.test, *split.validation]))
    return *_accuracy(objective, name, Held(held_out, request, BATCH)), len(held_out.samples)


@torch.no_grad()
def _accuracy(objective: PretextObjective, name: str, held: Held) -> tuple[float, float]:
    """The task's accuracy on held-out clips, and the chance that it states; NaN where it has none."""
    objective.eval()
    total, clips = np.zeros(2), 0
    for batch in held.evaluate():
        outputs = objective(batch)
        if f"{name}/accuracy" in outputs:
            figures = [float(outputs[f"{name}/{key}"]) for key in ("accuracy", "chance")]
            total += len(batch.key) * np.array(figures)
            clips += len(batch.key)
    accuracy, chance = (total / clips).tolist() if clips else (math.nan, math.nan)
    return accuracy, chance


if __name__ == "__main__":
    main()
