"""What a config describes: what to cut from clips, how to prepare it, and the model."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...fusion.backbone import select_modalities
from ...fusion.bundle.bundle import Bundle
from ...shards.clip_spec import ClipSpec, check_packing
from ...shards.clips.application import Application, clip_application
from ...shards.errors import RequestError
from ...shards.index.labels import label_column
from ...shards.index.selection import fraction_of, with_columns, with_labels, with_modalities
from ...shards.index.table import Index, load_index
from ...shards.media.credentials import masked
from ...shards.stream import ClipRequest, ClipStream
from ...tasks.splits.split_plan import SplitPlan, default_plan, plan_splits, say
from ...tasks.splits.splits import Split
from ..schema import DataConfig, TrainConfig
from ..training.device import ranks

# Default window, if neither the config nor an encoder sets one.
SECONDS, FRAMES = 1.0, 8


def clip_request(data: DataConfig, index: Index) -> ClipRequest:
    """What to cut from each clip. Raises `RequestError` for a modality that the shards do not have."""
    modalities = select_modalities(index.modalities, data.modalities)
    size = data.size or index.settings.size
    seconds, frames = data.seconds or SECONDS, data.frames or FRAMES
    return ClipRequest(modalities, data.segments, seconds, frames, size, data.stretch or 0.0)


def request_from(bundle: Bundle, data: DataConfig) -> ClipRequest:
    """What to cut for a training that starts from `bundle`; its windows are the default for `data`.

    Encoders of frames, sound or signals accept windows of other lengths than in pretraining.
    """
    request = request_of(bundle, data.segments)
    return replace(
        request,
        seconds=data.seconds or request.seconds,
        frames=data.frames or request.frames,
        size=data.size or request.size,
        stretch=request.stretch if data.stretch is None else data.stretch,
    )


def spec_for(spec: ClipSpec, request: ClipRequest) -> ClipSpec:
    """`spec` with the windows of `request`."""
    return replace(spec, seconds=request.seconds, frames=request.frames, size=request.size, stretch=request.stretch)


def request_of(bundle: Bundle, segments: int | None = None) -> ClipRequest:
    """What to cut from each clip, as in the training of the bundle's model."""
    spec, names = bundle.spec, bundle.backbone.modalities
    return ClipRequest(names, segments or bundle.segments, spec.seconds, spec.frames, spec.size, spec.stretch)


def held_request(request: ClipRequest, index: Index) -> ClipRequest:
    """`request` without the modalities that the shards do not have. Raises `RequestError` if none is left."""
    names = tuple(name for name in request.modalities if name in index.modalities)
    if not names:
        raise RequestError(f"'{index.folder}' has none of the model's modalities ({', '.join(request.modalities)})")
    return replace(request, modalities=names)


def application_of(request: ClipRequest, index: Index) -> Application:
    """How a model evaluated on the clips of `index`, cut by `request`, is applied to recordings."""
    durations = [sample.duration for sample in index.samples]
    return clip_application(request.segments, durations, index.settings.clip_seconds)


def check_shards_fit(bundle: Bundle, index: Index) -> None:
    """Raises `RequestError` if the shards were packed differently from those of the bundle's training."""
    check_packing(bundle.spec, index)


def select_clips(config: DataConfig) -> Index:
    """The index of the config's shards with the clips to use: `present_clips` with the given label values."""
    index = present_clips(config)
    return with_labels(index, config.label, config.classes) if config.classes else index


def present_clips(config: DataConfig) -> Index:
    """The index of the config's shards with the clips that have the required modalities and columns."""
    index = load_index(config.shards)
    index = with_columns(index, config.where) if config.where else index
    return with_modalities(index, config.present) if config.present else index


def split_plan(data: DataConfig, seed: int) -> SplitPlan:
    """How the config's clips are divided into splits."""
    return SplitPlan(
        folds=data.folds,
        leave_one_out=data.leave_one_out,
        lists=tuple(data.lists),
        group=data.group,
        leaky=data.leaky,
        train=data.split or "train",
        test=data.test_split,
        seed=seed,
    )


def choose_label(data: DataConfig, index: Index) -> DataConfig:
    """`data` with the clips' label column if its own has the default name and does not exist; prints the column."""
    label = data.label if data.labels else label_column(index, data.label)
    say("" if label == data.label else f"the label column is '{label}': data.label={label}")
    return replace(data, label=label)


def choose_folds(data: DataConfig, index: Index, column: str, seed: int) -> DataConfig:
    """`data` with the default number of folds if it sets none, which is printed; `column`: see `config_splits`."""
    plan, line = default_plan(index, column, split_plan(data, seed))
    say(line)
    return replace(data, folds=plan.folds, leaky=plan.leaky)


def config_splits(data: DataConfig, index: Index, seed: int, column: str | None = None) -> list[Split]:
    """The splits of the config's labelled clips, or only the one that `data.fold` names.

    Folds spread the values of `column` evenly; default: `data.label`.
    """
    splits = plan_splits(index, column or data.label, split_plan(data, seed))
    if data.fold is None:
        return splits
    if data.fold >= len(splits):
        raise RequestError(
            f"config key 'data.fold': there are {len(splits)} folds, numbered from 0, and no fold {data.fold}"
        )
    return [splits[data.fold]]


def clip_stream(
    index: Index, request: ClipRequest, config: DataConfig, seed: int, run: Path, **labels: Any
) -> ClipStream:
    """The training stream of this process: its share of every global batch of `batch_size` clips.

    Clips that cannot be decoded are listed in RUN/damaged.jsonl. Raises `RequestError` if the processes do not divide
    `batch_size`.
    """
    rank, world = ranks()
    if config.batch_size % world:
        raise RequestError(f"data.batch_size {config.batch_size} is not divisible by {world} processes")

    def list_damaged(key: str, reason: str) -> None:
        reason = masked(reason)
        print(f"warning: {reason}; replaced by the next clip", file=sys.stderr)
        with (run / "damaged.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "reason": reason}) + "\n")

    return ClipStream(
        fraction_of(index, config.fraction),
        request,
        config.batch_size // world,
        seed=seed,
        rank=rank,
        world=world,
        workers=config.workers,
        max_damaged=config.max_damaged,
        on_damaged=list_damaged,
        **labels,
    )


def in_steps(train: TrainConfig, clips: int, batch_size: int) -> TrainConfig:
    """`train` with its epochs of `clips` clips converted to steps, in whole global batches."""
    if train.epochs is None:
        return train
    return replace(train, steps=max(round(train.epochs * max(clips // batch_size, 1) / train.accumulate), 1))


def check_relearning(train: TrainConfig, section: str) -> None:
    """Raises `RequestError` if `aids.relearning` cannot move the weights of a training by `train`.

    `section`: its config key.
    """
    if train.average:
        raise RequestError(f"aids.relearning moves weights, which {section}.average would undo: set it to 0")
    if train.strategy == "fsdp":
        raise RequestError(f"aids.relearning moves whole weights, fsdp divides them: set {section}.strategy=ddp")
