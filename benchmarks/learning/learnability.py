"""Whether every pretext task learns what it should, and only from the cue that it should use.

    .venv/bin/python benchmarks/learning/learnability.py FOLDER [--tasks clip_order] [--clips 1000] [--json FILE]

Generated worlds (`solo`, and `place` for what lasts over a clip) and their twins, each without one cue, are written
and packed under FOLDER if missing. Each task trains alone, a small encoder from random weights, on the split
`pretrain`. Its accuracy is measured on all other clips, and again after the same training on the twin without its
cue.

Prints chance, the held-out accuracy, the twin's, the twin's distance from chance in standard errors, and the
processor time of the training. Rows already in the JSON file are skipped.
"""

import argparse
import functools
import json
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from held import HeldWhole
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.launch.jobs.building import clip_request
from modalgate.launch.schema import DataConfig, TrainConfig
from modalgate.launch.training.loop import train
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.augment import AugmentConfig
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.worlds.write_world import write_world
from modalgate.ssl.objective import PretextObjective
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS
from modalgate.tasks.splits.splits import given_split, take

FPS, SIZE = 16.0, 24
# A network of 130,000 parameters, cheap enough for hundreds of steps a minute. Sound in columns of 80 ms: a stride of
# 32, the network's own, would leave three of them to a second.
NARROW: dict[str, Any] = {"channels": [16, 24, 32, 48], "stem_width": 8}
VIDEO = EncoderSpec("timm/test_resnet", NARROW, pooling="gru", stack=4)
AUDIO = EncoderSpec("timm/test_resnet", {**NARROW, "output_stride": 8}, pooling="gru")
# The sound as it was written: resampling would leave a mark where a clip begins and ends, by which the place in the
# clip, which needs no listening, could be told.
SAMPLE_RATE = 8000


@dataclass(frozen=True)
class Row:
    """A task as it is tried: `segments` of `seconds`, its arguments, the world of its cue, the twin without it, steps
    of its own. `task`: its name, if the row has another. `figure`: the output that is measured."""

    arguments: dict[str, Any] = field(default_factory=dict)
    segments: int = 2
    seconds: float = 1.0
    world: str = "solo"
    twin: str = ""
    modalities: tuple[str, ...] = ("rgb", "depth")
    steps: int = 240
    batch: int = 32
    learning_rate: float = 3e-3
    task: str = ""
    figure: str = "accuracy"

    @property
    def frames(self) -> int:
        """Of a segment: every one."""
        return round(self.seconds * FPS)


DEPTH: dict[str, Any] = {"modalities": ("depth",)}
FLOW: dict[str, Any] = {"modalities": ("flow",)}
HEARD: dict[str, Any] = {"modalities": ("audio",)}
SOUND: dict[str, Any] = {"modalities": ("depth", "audio")}
# A strike is in one window or in another where windows are shorter than its period.
MOMENTS: dict[str, Any] = {"segments": 6, "seconds": 0.25, "twin": "synchrony", "steps": 600, **SOUND}
# The three segments of a second are the three seconds of a clip, as the twin without order cuts them.
ORDER: dict[str, Any] = {"segments": 3, "twin": "order", **DEPTH}
STREAM: dict[str, Any] = {"streams": ["depth"]}
# Depth of another scene answers nothing about the picture or the sound.
PAIRS: dict[str, Any] = {"twin": "pairing"}
ROWS = {name: Row() for name in PRETEXT_TASKS} | {
    **{name: Row(**PAIRS) for name in ("cross_modal", "leave_one_out", "vicreg", "barlow_twins", "lejepa")},
    # Four times as long at three times the rate, it learns its few training clips by heart.
    "correspondence": Row(steps=400, learning_rate=1e-3, **PAIRS, **SOUND),
    # Another clip's sound has another rhythm. Without such easy negatives only the moment is left as a cue.
    "synchrony": Row({"hard": 1.0, "easy_until": 0.0, "gap": 0.0}, **MOMENTS),
    "offset": Row({"gap": 0.0}, **MOMENTS),
    # A small queue keeps chance above zero.
    "momentum_queue": Row({"size": 64}, **PAIRS),
    "agreement": Row({"size": 64}, steps=600, **PAIRS),
    # It keeps what two streams share at any two moments. `solo` shares only the size.
    "crisscross": Row(world="place", **PAIRS),
    # Without negatives, or with much of the input hidden, rows separate slowly.
    "byol": Row(steps=1200, **PAIRS),
    "masked_latent": Row({"share": 0.34}, segments=3, steps=1000),
    "contrastive_masked": Row({"share": 0.34}, segments=3, steps=1000),
    "swapped_assignments": Row(steps=600, **PAIRS),
    "clip_order": Row(STREAM | {"dropout": 0.1}, **ORDER),
    "order_verification": Row(STREAM | {"dropout": 0.1}, **ORDER),
    "frame_order": Row(STREAM | {"dropout": 0.1}, **ORDER),
    "odd_one_out": Row(STREAM | {"dropout": 0.1}, segments=4, seconds=0.75, **DEPTH),
    "arrow_of_time": Row(STREAM, segments=1, twin="direction", batch=64, **DEPTH),
    "pace": Row(segments=1, twin="pace", batch=64),
    # Sound is cut where a clip ends. Windows of flow omit the last frame, as in training. The seconds of the twin
    # without order would jump in flow between two frames, so the cue goes with all motion.
    "clip_order flow": Row({"streams": ["flow"], "dropout": 0.1}, 3, 0.75, twin="pace", task="clip_order", **FLOW),
    "clip_order audio": Row({"streams": ["audio"], "dropout": 0.1}, 3, 1.0, twin="order", task="clip_order", **HEARD),
    "arrow_of_time flow": Row(segments=1, twin="direction", batch=64, task="arrow_of_time", **FLOW),
    "arrow_of_time audio": Row(segments=1, twin="direction", batch=64, task="arrow_of_time", **HEARD),
    # Picture and flow of one frame, together: reversed, a frame meets the motion that led to it.
    "arrow_of_time fused": Row(
        {"streams": ["fused"]}, 1, twin="direction", batch=64, task="arrow_of_time", modalities=("rgb", "flow")
    ),
    "pace flow": Row({"streams": ["flow"]}, 1, twin="pace", batch=64, task="pace", **FLOW),
    # The moments of contacts in flow and sound also show which of two directions fits.
    "gdt flow": Row(
        twin="alignment", task="gdt", figure="direction_accuracy", modalities=("flow", "audio"), steps=600
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default=",".join(ROWS))
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
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
        print(
            f"{name:20} chance {row['chance']:.4f}  held out {row['accuracy']:.3f}{twin}"
            f"  {row['cpu_seconds']:.0f} s of processor time, {row['seconds']:.0f} s",
            flush=True,
        )


def measure(name: str, row: Row, arguments: argparse.Namespace) -> dict[str, float | None]:
    """The row's held-out accuracy, on the world and on its twin, and what its training took."""
    found = learn(name, row, *corpus(arguments, row.world), arguments)
    twin = errors = None
    if row.twin:
        other = learn(name, row, *corpus(arguments, row.world, row.twin), arguments)
        twin, chance = other["accuracy"], other["chance"]
        errors = (twin - chance) / math.sqrt(chance * (1 - chance) / other["clips"])
    return {**found, "twin": twin, "twin_errors": errors}


def corpus(arguments: argparse.Namespace, preset: str, twin: str = "") -> tuple[Index, HeldWhole, HeldWhole]:
    """Shards of a world, or of its twin, with the streams that its rows read: training clips, and others."""
    name = f"{preset}-without-{twin}" if twin else preset
    shards = arguments.folder / name
    rows = [row for row in ROWS.values() if row.world == preset and twin in ("", row.twin)]
    streams = {name for row in rows for name in row.modalities}
    if not (shards / "index.json").is_file():
        world = arguments.folder / f"world-{name}"
        if not world.is_dir():
            write_world(world, preset, arguments.clips, arguments.seed, twin=twin, workers=arguments.threads)
        settings = PackSettings(modalities=tuple(sorted(streams)), size=48, fps=FPS, sample_rate=SAMPLE_RATE)
        pack(world, shards, settings, workers=arguments.threads)
    return decoded(shards)


@functools.cache
def decoded(shards: Path) -> tuple[Index, HeldWhole, HeldWhole]:
    """An index, its clips of the split `pretrain`, and all others."""
    index = load_index(shards)
    training = given_split(index, "pretrain").train
    others = np.setdiff1d(np.arange(len(index.samples)), training)
    request = clip_request(DataConfig(size=SIZE), index)
    return index, HeldWhole(take(index, training), request, 1), HeldWhole(take(index, others), request, 1)


def learn(
    name: str, row: Row, index: Index, clips: HeldWhole, others: HeldWhole, arguments: argparse.Namespace
) -> dict[str, float]:
    """Held-out accuracy after training, what guessing reaches, of how many clips, and the time it took."""
    name = row.task or name
    data = DataConfig(
        modalities=list(row.modalities), segments=row.segments, seconds=row.seconds, frames=row.frames, size=SIZE
    )
    request = clip_request(data, index)
    torch.manual_seed(arguments.seed)
    backbone = Backbone(row.modalities, BackboneSpec(width=64, encoders={"video": VIDEO, "audio": AUDIO}))
    objective = PretextObjective(
        backbone,
        ClipSpec.of(index, request),
        row.segments,
        {name: (1.0, row.arguments)},
        AugmentConfig(crop_scale=0.9),
        row.steps,
    )
    budget = TrainConfig(
        steps=row.steps,
        learning_rate=row.learning_rate,
        log_every=50,
        checkpoint_every=10**6,
        best=None,
        threads=arguments.threads,
    )
    wall, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        train(
            objective,
            clips.asked(request, row.batch),
            budget,
            Path(scratch) / "run",
            seed=arguments.seed,
            tracker_mode="disabled",
        )
    took = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    found = _accuracy(objective, name, row.figure, others.asked(request, row.batch))
    return found | took | {"clips": len(others.clips)}


@torch.no_grad()
def _accuracy(objective: PretextObjective, name: str, figure: str, held: HeldWhole) -> dict[str, float]:
    """The task's `figure` on held-out clips, and its chance; NaN where it has none."""
    objective.eval()
    total, clips = np.zeros(2), 0
    for batch in held.evaluate():
        outputs = objective(batch)
        if f"{name}/{figure}" in outputs:
            chance = float(outputs[f"{name}/chance"]) if figure == "accuracy" else 0.5
            figures = [float(outputs[f"{name}/{figure}"]), chance]
            total += len(batch.key) * np.array(figures)
            clips += len(batch.key)
    accuracy, chance = (total / clips).tolist() if clips else (math.nan, math.nan)
    return {"accuracy": accuracy, "chance": chance}


if __name__ == "__main__":
    main()
