"""Trains on a fixed sequence of global batches, of which every rank takes its rows: what N processes do, one can too.

`main([OBJECTIVE, SHARDS, RUN, STEPS, STRATEGY])`; OBJECTIVE is supervised, pretext, teacher, a pretext task with
one, or uneven: pretext tasks where rank 1 has no sound in every other batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.launch.schema import TrainConfig
from modalgate.launch.training.device import ranks
from modalgate.launch.training.loop import train
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import load_index
from modalgate.shards.stream import ClipRequest, ClipStream
from modalgate.ssl.objective import PretextObjective
from modalgate.tasks.finetuning.supervised_objective import SupervisedObjective
from modalgate.tasks.splits.splits import labelled
from torch import nn

REQUEST = ClipRequest(("rgb", "audio"), 3, 0.4, 2, 32)
# At the usual temperature of 0.07 the gradients of so small a network are hundreds, and its curves chaotic.
WARM = {"temperature": 0.5}
TASKS = {"cross_modal": (1.0, WARM), "across_time": (0.5, WARM), "correspondence": (0.5, {})}
WITH_TEACHER = {"momentum_queue": (1.0, {**WARM, "size": 24}), "byol": (0.5, {})}


@dataclass
class Rows:
    """This rank's rows of the batches in `joined`, by turns for ever."""

    joined: list[Batch]
    rank: int
    world: int
    uneven: bool = False
    workers: int = 0

    def train(self, start: int, /) -> Iterator[Batch]:
        number = start
        while True:
            batch = self.joined[number % len(self.joined)]
            size = len(batch) // self.world
            part = slice(self.rank * size, (self.rank + 1) * size)
            silent = {"audio"} if self.uneven and self.rank == 1 and number % 2 else set[str]()
            yield replace(
                batch,
                streams={name: stream[part] for name, stream in batch.streams.items() if name not in silent},
                present={name: mask[part] & (name not in silent) for name, mask in batch.present.items()},
                key=batch.key[part],
                start=batch.start[part],
                label=None if batch.label is None else batch.label[part],
                valid=batch.valid[part],
            )
            number += 1


def main(arguments: Sequence[str]) -> int:
    kind, shards, run, steps, strategy = arguments
    index, classes, _ = labelled(load_index(shards), "label")
    joined = ClipStream(index, REQUEST, 8, seed=5, label="label", classes=classes)
    rank, world = ranks()
    # AdamW divides by the gradient's size: where a contrastive loss is flat it makes steps of rounding errors.
    optimizer = {"supervised": "adamw", "pretext": "sgd", "teacher": "lars", "uneven": "adamw"}[kind]
    config = TrainConfig(
        steps=int(steps),
        strategy=strategy,
        optimizer=optimizer,
        learning_rate=3e-3,
        log_every=1,
        checkpoint_every=1000,
        threads=1,
        precision="fp32",
        hang_minutes=2,
    )
    objective = build(kind, ClipSpec.of(index, REQUEST), classes)
    rows = Rows(list(islice(joined.train(0), 6)), rank, world, kind == "uneven")
    train(objective, rows, config, Path(run), seed=1, tracker_mode="disabled")
    return 0


def build(kind: str, spec: object, classes: list[str]) -> nn.Module:
    """Nothing in it draws per process: no dropout, no augmentation, no modality dropped."""
    sizes = {"depths": [1, 1, 1, 1], "dims": [4, 4, 8, 8]}
    encoder = EncoderSpec("timm/convnext_atto", sizes, pooling="mean")
    torch.manual_seed(0)
    model = BackboneSpec(width=8, fusion="softmax", encoders={"video": encoder, "audio": encoder})
    backbone = Backbone(REQUEST.modalities, model)
    if kind == "supervised":
        classifier = Classifier(backbone, classes, dropout=0.0)
        return SupervisedObjective(classifier, spec, None)  # pyright: ignore[reportArgumentType]
    tasks = WITH_TEACHER if kind == "teacher" else TASKS
    return PretextObjective(backbone, spec, REQUEST.segments, tasks, None)  # pyright: ignore[reportArgumentType]
