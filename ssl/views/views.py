"""Altered input for pretext tasks. A view is encoded once, for all tasks that read it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...shards.modality import modality
from .corruption import corrupt_streams

MAX_RATE = 2


@dataclass(frozen=True)
class View:
    """Altered input of K' segments from each of B clips.

    streams: (B, K', ...) by modality, only those that the view changes. Other streams keep their features.
    present: (B, K') of every modality.
    segments: (B, K'), segment number of each row.
    facts: (B, ...) by name, for the tasks.
    """

    streams: dict[str, Tensor]
    present: dict[str, Tensor]
    segments: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)


Streams = dict[str, Tensor]
ViewFunction = Callable[[Streams, Streams, torch.Generator], View]


def take_segments(tensor: Tensor, segments: Tensor) -> Tensor:
    """The `segments` (B, K') of each clip of a tensor (B, K, ...), as (B, K', ...)."""
    return tensor[torch.arange(len(tensor), device=tensor.device)[:, None], segments.to(tensor.device)]


def one_segment(present: Streams, generator: torch.Generator) -> Tensor:
    """A random segment number (B, 1) per clip. A view of one segment costs 1/K of the whole clip."""
    clips, segments = next(iter(present.values())).shape
    return torch.randint(segments, (clips, 1), generator=generator)


def forward(streams: Streams, present: Streams, generator: torch.Generator) -> View:
    """All segments, with flow as `reverse` can show it: the last entry repeats the one before it.

    `reverse` lacks one entry of flow. A network that compares both views would find the direction by that gap alone.
    """
    kept = next(iter(present.values()))
    segments = torch.arange(kept.shape[1]).expand(kept.shape)
    changed = {name: _hold_last(stream) for name, stream in streams.items() if modality(name).flow_of}
    return View(changed, present, segments)


def reverse(streams: Streams, present: Streams, generator: torch.Generator) -> View:
    """One segment of every clip, reversed in time.

    All streams are reversed together, so that a difference between streams does not reveal it. Flow changes its sign.
    A flow entry is the motion from its frame to the next, so in reverse it belongs to the frame that was next: the
    entries move by one frame. The entry of the last frame lies outside the window; it repeats the one before it.
    Compare it with the view `forward`, whose last entry repeats too.
    """
    segments = one_segment(present, generator)
    turned = {}
    for name, stream in streams.items():
        entry = modality(name)
        taken = take_segments(stream, segments)
        if entry.flow_of:
            taken = _hold_last(-taken.flip(2).roll(-1, 2))
        else:
            taken = taken.flip(-1) if entry.kind == "audio" else taken.flip(2)
        turned[name] = taken
    return View(turned, {name: take_segments(mask, segments) for name, mask in present.items()}, segments)


def _hold_last(flow: Tensor) -> Tensor:
    """Flow (B, K, T, ...) whose last entry repeats the one before it; a single entry stays."""
    frames = flow.shape[2]
    places = torch.arange(frames, device=flow.device).clamp(max=max(frames - 2, 0))
    return flow[:, :, places]


def comparable_views(views: Mapping[str, ViewFunction], modalities: Sequence[str]) -> dict[str, ViewFunction]:
    """The views of a task that compares directions of time: `views`, and `forward` if a modality is flow."""
    flow = any(modality(name).flow_of for name in modalities)
    return {**views, "forward": forward} if flow else dict(views)


def pace(streams: Streams, present: Streams, generator: torch.Generator) -> View:
    """One segment of every clip in `T / MAX_RATE` video frames, which are 1 or `MAX_RATE` frames apart.

    `facts["rate"]` (B,) is 0 for the normal pace and 1 for the fast one, equally often. Both have the same number of
    frames, all from the segment; none is repeated. Sound keeps its pace, because resampling would shift its pitch.
    Flow vectors keep their length.
    """
    segments = one_segment(present, generator)
    clips = len(segments)
    rate = deal_evenly(clips, 2, generator)
    changed = {}
    starts = torch.rand(clips, generator=generator)
    for name, stream in streams.items():
        if modality(name).kind == "video":
            frames = stream.shape[2]
            length = frames // MAX_RATE
            step = 1 + rate * (MAX_RATE - 1)
            first = (starts * (frames - (length - 1) * step)).long()
            places = (first[:, None] + torch.arange(length) * step[:, None]).to(stream.device)
            taken = take_segments(stream, segments)
            rows = torch.arange(clips, device=stream.device)[:, None]
            changed[name] = taken[:, 0][rows, places].unsqueeze(1)
    kept = {name: take_segments(mask, segments) for name, mask in present.items()}
    device = next(iter(present.values())).device
    return View(changed, kept, segments, {"rate": rate.to(device)})


def corrupt(streams: Streams, present: Streams, generator: torch.Generator) -> View:
    """One segment of every clip, with some of its streams corrupted (see `corrupt_streams`).

    `facts["severity"]` (B, 1, M) follows the order of `present`: 0 for clean, 1 for dropped.
    """
    segments = one_segment(present, generator)
    taken = {name: take_segments(stream, segments) for name, stream in streams.items()}
    kept = {name: take_segments(mask, segments) for name, mask in present.items()}
    changed, kept, severity = corrupt_streams(taken, kept, generator)
    return View(changed, kept, segments, {"severity": severity})


def deal_evenly(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Class numbers (count,) in random order. The frequencies of classes differ by at most one."""
    offset = int(torch.randint(0, classes, (), generator=generator))
    numbers = (torch.arange(count) + offset) % classes
    return numbers[torch.randperm(count, generator=generator)]
