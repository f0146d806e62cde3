"""Settings that a config leaves open: windows, networks, tasks, augmentation, rate and length.

They follow from the shards: modalities, length and number of the clips, and their labels.
docs/guides/training/defaults.md explains the rules.
"""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...fusion.spec import PRESETS, Preset
from ...shards.clip_spec import ClipSpec
from ...shards.errors import choice_error
from ...shards.index.location import FolderReader
from ...shards.index.table import Index
from ...shards.index.unreadable import UNREADABLE
from ...shards.media.container_io import open_media
from ...shards.modality import modality

# Clips up to this length, in seconds, show one action each: a window covers nearly all of a clip.
SHORT = 6.0
COVERED = 0.9
# Window of longer footage, in seconds.
WINDOW = 3.0
# Frames per second in a window, and the most of them.
RATE, MOST_FRAMES = 12.0, 32
# Frames that a network takes at once, as channels, to see motion.
STACK = 8
# Windows per clip that pretraining compares; they do not overlap.
SEGMENTS = 3
# By command: passes over the training clips, fewest steps of a model, and most steps of all models together.
PASSES = {"pretrain": (25, 200, 400), "finetune": (35, 200, 1200)}
# More modalities or frames make each step slower, so fine-tuning takes fewer steps.
USUAL_MODALITIES, USUAL_FRAMES = 3, 24
# The decision with a gate, and the fewest validation clips that fit it.
GATE, ENOUGH = "reliability", 100
# Class names that mean no event, such as `normal`, `no_fall` and `noFight`, but not `north`.
_NOTHING = re.compile(
    r"(?i:0|false|no|non|not|none|normal|negative|others?|background|nothing|adl|rest|idle)(?![a-zA-Z])"
    r"|[nN]on?(?=[A-Z])"
)
_DIRECTIONS = re.compile(r"(?<![a-z])(left|right|cw|ccw|(counter|anti)?-?clockwise)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """A chosen setting: its dotted `key`, its `value`, and the reason in a few words."""

    key: str
    value: Any
    reason: str


def choose(
    kind: str,
    index: Index,
    given: Mapping[str, Any],
    start: ClipSpec | None = None,
    clips: int | None = None,
    models: int = 1,
) -> list[Choice]:
    """The settings of a `pretrain` or `finetune` config that `given`, its content so far, leaves open.

    `index`: the clips it trains on. `start`: the clip preparation of the encoder it starts from, if any. `clips`:
    number of clips that train one model; default: all. `models`: number of models, one per fold. Raises
    `RequestError` for an unknown size.
    """
    data = _section(given, "data")
    names = tuple(data.get("modalities") or index.modalities)
    names = tuple(name for name in names if name in index.modalities) or index.modalities
    choices = [
        *_windows(kind, index, names, data, start),
        *_network(kind, index, names, given, start),
        *_augmentation(index, names),
    ]
    frames = int(data.get("frames") or next(choice.value for choice in choices if choice.key == "data.frames"))
    most = _most_steps(kind, len(names), frames)
    length = _length(kind, len(index.samples) if clips is None else clips, models, most, given)
    if kind == "pretrain":
        choices += _pretraining(names, given)
    else:
        steps = next((choice.value for choice in length if choice.key == "train.steps"), None)
        choices += _finetuning(index, names, given, start is not None)
        choices += _decision(index, names, given, start is not None, models, steps, most)
    choices += length
    return [choice for choice in choices if not _has(given, choice.key)]


def nested(choices: list[Choice]) -> dict[str, Any]:
    """The choices as a config's content."""
    content: dict[str, Any] = {}
    for choice in choices:
        *sections, last = choice.key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = choice.value
    return content


def describe(choices: list[Choice]) -> list[str]:
    """A line per choice: key, value and reason."""
    width = max((len(choice.key) for choice in choices), default=0)
    return [f"{choice.key:<{width}}  {_plain(choice.value)}  ({choice.reason})" for choice in choices]


def typical_seconds(index: Index) -> float:
    """The median length of the clips."""
    return float(np.median([sample.duration for sample in index.samples]))


def picture_side(index: Index, names: tuple[str, ...]) -> int:
    """Short side of the packed pictures in pixels; below the packed size if the sources are smaller."""
    files = FolderReader(index.folder)
    for name in names:
        entry = modality(name)
        sample = next((sample for sample in index.samples if entry.suffix in sample.members), None)
        if entry.kind == "video" and sample is not None:
            data = files.read(sample.shard, *sample.members[entry.suffix])
            try:
                with open_media(io.BytesIO(data)) as container:
                    stream = container.streams.video[0]
                    # Channels of other than colour are stacked vertically.
                    return min(stream.width, stream.height // (1 if entry.channels == 3 else entry.channels))
            except UNREADABLE:
                continue  # damaged: training reports and skips it
    return index.settings.size


def _windows(
    kind: str, index: Index, names: tuple[str, ...], data: Mapping[str, Any], start: ClipSpec | None
) -> list[Choice]:
    """One window per clip if clips are short, several of a fixed length if they are long.

    Pretraining takes windows of a third of that length at the same speed, so that one encoder serves both.
    """
    typical = typical_seconds(index)
    sounds = any(modality(name).kind == "audio" for name in names)
    short = typical <= SHORT
    seconds = round(COVERED * typical, 2) if short else WINDOW
    stretch = COVERED if short and not sounds else 0.0
    why = f"clips last {typical:.1f} s"
    if stretch:
        why += ", a window covers nine tenths of a clip"
    rate = min(RATE, index.settings.fps)
    frames = STACK * min(max(round(seconds * rate / STACK), 1), MOST_FRAMES // STACK)
    segments = 1 if short else 2
    if start is not None:
        # An encoder has learned at one frame rate, so its windows keep it.
        frames, stretch = _multiple(frames, start.frames), COVERED if start.stretch else 0.0
        seconds = round(frames * start.seconds / start.frames, 3) if not stretch else seconds
    if kind == "pretrain":
        pieces = max(frames // STACK // SEGMENTS, 1)
        seconds = round(seconds * pieces * STACK / frames, 3)
        stretch = round(stretch * pieces * STACK / frames, 3)
        frames, segments = pieces * STACK, SEGMENTS
        why = f"{SEGMENTS} windows per clip are compared; {why}"
    return [
        Choice("data.segments", segments, "windows per clip"),
        Choice("data.seconds", seconds, why),
        Choice("data.stretch", stretch, why),
        Choice("data.frames", frames, f"{frames / seconds:.0f} a second, in stacks of {STACK}"),
    ]


def _network(
    kind: str, index: Index, names: tuple[str, ...], given: Mapping[str, Any], start: ClipSpec | None
) -> list[Choice]:
    if start is not None:
        return [Choice("data.size", start.size, "as the encoder was trained")]
    model = _section(given, "model")
    name = str(model.get("preset") or "tiny")
    if name not in PRESETS:
        raise choice_error("value for config key 'model.preset'", name, PRESETS)
    preset = PRESETS[name]
    pixels = min(preset.pixels, picture_side(index, names))
    choices = [Choice("data.size", pixels, f"pixels, preset '{name}'")]
    encoders = _section(model, "encoders")
    kinds = dict.fromkeys(modality(entry).kind for entry in names)
    if missing := [group for group in kinds if group not in encoders]:
        choices.append(Choice("model.preset", name, "the smallest; `small` and `base` need more clips and time"))
        choices.append(Choice("model.width", preset.width, f"preset '{name}'"))
        frames = _section(given, "data").get("frames")
        for group in missing:
            encoder = _encoder(preset, group, frames)
            choices.append(Choice(f"model.encoders.{group}", encoder, f"preset '{name}'"))
    if kind == "pretrain" and len(names) > 1 and "fusion" not in model:
        choices.append(
            Choice("model.fusion_arguments", {"balance": 0.1}, "keeps the gate from using only one modality")
        )
    return choices


def _encoder(preset: Preset, kind: str, frames: int | None) -> dict[str, Any]:
    """The encoder of a kind. The `stack` of video is at most `STACK`, and a divisor of a given number of frames."""
    encoder = {key: value for key, value in asdict(preset.encoders[kind]).items() if value is not None}
    if kind != "video":
        return encoder
    return encoder | {"stack": max(number for number in range(1, STACK + 1) if (frames or STACK) % number == 0)}


def _augmentation(index: Index, names: tuple[str, ...]) -> list[Choice]:
    words = {value for column in index.columns for value in set(index.column(column)) if _DIRECTIONS.search(value)}
    flip = not words and any(modality(name).kind == "video" for name in names)
    why = f"a label names a direction: {min(words)}" if words else "no label names left or right"
    choices = [Choice("augment.flip", flip, why)]
    if any(modality(name).vectors for name in names):
        choices.append(Choice("augment.turn", 20.0, "degrees: sensors are worn at different angles"))
    if any(modality(name).kind == "signal" for name in names):
        choices.append(Choice("augment.signal_noise", 0.1, "of the signal's standard deviation"))
    return choices


def _pretraining(names: tuple[str, ...], given: Mapping[str, Any]) -> list[Choice]:
    """Windows of one clip against those of other clips, and each modality against the others if there are several.

    `leave_one_out` also trains the gate: it compares a modality with the fused embedding of the others.
    """
    if given.get("tasks"):
        return []
    pictures = [name for name in names if modality(name).kind == "video"]
    tasks: dict[str, Any] = {"across_time": {}}
    if len(names) > 1:
        return [Choice("tasks", tasks | {"leave_one_out": {}}, "compares windows of a clip, and its modalities")]
    if pictures:
        tasks["clip_order"] = {"weight": 0.5, "arguments": {"streams": pictures, "dropout": 0.2}}
    return [Choice("tasks", tasks, "compares windows of a clip: there is one modality")]


def _finetuning(index: Index, names: tuple[str, ...], given: Mapping[str, Any], pretrained: bool) -> list[Choice]:
    choices = []
    choices.append(Choice("head_learning_rate", 1.0, "head and encoders learn at one rate"))
    if "task" not in given and (found := event_class(index, str(_section(given, "data").get("label", "label")))):
        choices.append(Choice("task", "violence", "two classes, one of them without an event"))
        choices.append(Choice("positive", found, "the class to detect"))
    return choices


def _decision(
    index: Index,
    names: tuple[str, ...],
    given: Mapping[str, Any],
    pretrained: bool,
    models: int,
    steps: int | None,
    most: float,
) -> list[Choice]:
    """How the modalities' scores are joined: by a gate if validation clips or more models can fit it."""
    model = _section(given, "model")
    if len(names) < 2 or given.get("task") == "multilabel" or "fusion" in model or "fusion_arguments" in model:
        return []
    alone = Choice("unimodal_weight", 1.0, "each modality learns the label alone")
    gate = "modalities score apart; a gate weighs them clip by clip"
    if "decision" in given or "cross_fit" in given or "hold_out" in given:
        decision = str(given.get("decision") or (GATE if given.get("cross_fit") else "mean"))
        return [Choice("decision", decision, gate if decision == GATE else "modalities score apart"), alone]
    # The gate is fitted to experts that train without aids.
    aided = any(_section(given, "aids").values())
    held = _validation_clips(index, given) if models == 1 and not aided else 0
    if held >= ENOUGH:
        return [
            Choice("decision", GATE, gate),
            Choice("hold_out", True, f"the {held} validation clips fit the gate"),
            alone,
        ]
    if not aided and steps is not None and steps * models * 2 <= most:
        why = "two more models, each trained on half of the clips, score the other half to fit the gate"
        return [Choice("decision", GATE, gate), Choice("cross_fit", 2, why), alone]
    if pretrained:
        why = "modalities score apart, weighted by how well their pretrained features predict the label"
        return [Choice("decision", "weighted_mean", why), alone]
    return [Choice("decision", "mean", "modalities score apart, and their scores are averaged"), alone]


def _validation_clips(index: Index, given: Mapping[str, Any]) -> int:
    """Number of validation clips of a given split; 0 where folds divide the clips."""
    data = _section(given, "data")
    divided = any(data.get(key) for key in ("folds", "leave_one_out", "lists", "split"))
    return 0 if divided or "split" not in index.columns else index.column("split").count("val")


def event_class(index: Index, label: str) -> str | None:
    """The class that is an event: `fight` of `fight` and `noFight`.

    None unless there are two classes and one name says that nothing happens.
    """
    classes = sorted({value for value in index.column(label) if value}) if label in index.columns else []
    if len(classes) != 2:
        return None
    first, second = classes
    events = [name for name, other in ((first, second), (second, first)) if not _denies(name, other)]
    return events[0] if len(events) == 1 else None


def _denies(name: str, other: str) -> bool:
    return bool(_NOTHING.match(name) or re.fullmatch(rf"(no|non|not)[-_ ]?{re.escape(other)}", name, re.IGNORECASE))


def _length(kind: str, clips: int, models: int, most: float, given: Mapping[str, Any]) -> list[Choice]:
    batch = 32 if clips >= 64 else max(2 ** int(math.log2(max(clips // 2, 2))), 2)
    given_batch = int(_section(given, "data").get("batch_size") or batch)
    choices = [Choice("data.batch_size", batch, f"{clips} training clips")]
    train = _section(given, "train")
    if train.get("steps") is None and train.get("epochs") is None:
        steps = _steps(kind, clips, most / models, given_batch)
        passes = steps * given_batch / max(clips, 1)
        choices.append(Choice("train.steps", steps, f"{passes:.0f} passes over {clips} clips"))
    choices.append(Choice("train.learning_rate", 3e-3, f"for batches of {given_batch}"))
    return choices


def _steps(kind: str, clips: int, most: float, batch: int) -> int:
    """Steps for a number of passes over the clips, within bounds; at least one pass."""
    passes, fewest, _ = PASSES[kind]
    return round(max(min(passes * clips / batch, max(most, clips / batch)), fewest))


def _most_steps(kind: str, modalities: int, frames: int) -> float:
    """Most steps of all models together."""
    most = PASSES[kind][2]
    if kind == "pretrain":
        return most
    return most / max(modalities / USUAL_MODALITIES, frames / USUAL_FRAMES, 1)


def _plain(value: Any) -> str:
    """A short text of a value; of a mapping its names, with the arguments chosen for them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name} {entry}" if isinstance(entry, str | int | float) else str(name) for name, entry in value.items()
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _multiple(number: int, base: int) -> int:
    """The multiple of `base` nearest to `number`, at least one."""
    return base * max(round(number / base), 1)


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = content.get(name)
    return section if isinstance(section, Mapping) else {}


def _has(content: Mapping[str, Any], key: str) -> bool:
    """Whether `content` sets the dotted `key`; null counts as a setting."""
    *sections, last = key.split(".")
    for section in sections:
        content = _section(content, section)
    return last in content
