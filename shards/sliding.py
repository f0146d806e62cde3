"""Windows that slide over one recording of any length: every frame decoded once, and only a window's worth kept."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .clip_spec import ClipSpec
from .damage import Damage
from .index import PackSettings
from .media import FrameReader, iterate_frames, probe
from .modality import modality, shown_by
from .pictures import iterate_pictures
from .soundtrack import iterate_sound
from .tracks import Pictures, Signal, Sound, Track

if TYPE_CHECKING:
    from .batch import Batch


@dataclass(frozen=True)
class Window:
    """`start`, `end` in seconds from the first frame; `streams` as shards store one window: video (T, C, H, W), audio
    (N,), signals (N, C). What the recording lacks there is no stream. `clock`: of a live source, the Unix time of its
    start."""

    start: float
    end: float
    streams: dict[str, NDArray[Any]]
    clock: float | None = None


def slide(
    files: dict[str, Path],
    spec: ClipSpec,
    modalities: tuple[str, ...],
    hop: float | None = None,
    rates: dict[str, float] | None = None,
    damage: Damage | None = None,
) -> Iterator[Window]:
    """Windows of `spec.seconds` every `hop` seconds (half a window by default), the last one whole.

    `files`: `video` (with its sound) and other modalities' files by name; `rates`: Hz of those that do not tell their
    own (frame folders, arrays, signals), under the same names; `damage`: packets that cannot be decoded are counted
    there and skipped: pictures stand still meanwhile, and sound is silent. A recording shorter than one window gives
    one, whose last picture stands still and whose sound ends in silence. Sound counts as absent while it has stayed
    below the packing's threshold for the last half minute. Raises `ValueError` where there is nothing of
    `modalities`, or hop is not above 0, and what reading raises, after the windows that came before the fault.
    """
    hop = check_hop(hop, spec)
    tracks = _open(files, sliding_settings(spec, modalities), spec, rates or {}, damage)
    if not tracks:
        raise ValueError(f"it has none of {', '.join(modalities)}")
    yield from cut_windows(tracks, spec, modalities, hop)


def check_hop(hop: float | None, spec: ClipSpec) -> float:
    """The step in seconds, half a window where none is given; `ValueError` where it does not move."""
    hop = spec.seconds / 2 if hop is None else hop
    if not hop > 0:
        raise ValueError(f"a hop of {hop:g} s does not move: give seconds above 0")
    return hop


def sliding_settings(spec: ClipSpec, modalities: tuple[str, ...]) -> PackSettings:
    """How the packing made what the encoder knows, for a recording of any length."""
    return PackSettings(
        modalities,
        spec.short_side,
        spec.fps,
        spec.flow_bound,
        spec.sample_rate,
        max_seconds=math.inf,
        region=spec.region,
    )


def cut_windows(
    tracks: list[Track],
    spec: ClipSpec,
    modalities: tuple[str, ...],
    hop: float,
    skip: Callable[[float], bool] = lambda start: False,
) -> Iterator[Window]:
    """Windows of opened `tracks`; those whose start `skip` says so of are read, but not made.

    The first track sets the end: pictures where there are any, for sound often runs on after them.
    """
    leader = tracks[0]
    for number in count():
        start = number * hop
        whole = leader.reach(start + spec.seconds)
        if not whole and number:
            return
        if not whole and leader.seconds <= 0:
            raise ValueError("it holds nothing that can be decoded")
        skipped = skip(start)
        streams: dict[str, NDArray[Any]] = {}
        for track in tracks:
            if track is not leader:
                track.reach(start + spec.seconds)
            if not skipped:
                streams |= track.cut(start)
        if not skipped:
            end = start + spec.seconds if whole else leader.seconds
            yield Window(start, end, {name: streams[name] for name in modalities if name in streams})
        for track in tracks:
            track.forget(start + hop)


def batch_windows(windows: list[Window], modalities: tuple[str, ...]) -> "Batch":
    """Windows as clips of one segment."""
    # Sliding alone needs no torch, and an ONNX model starts in a third of the time without it.
    import torch

    from .batch import Clip, stack

    clips = []
    for window in windows:
        streams = {name: torch.from_numpy(values[None]) for name, values in window.streams.items()}
        present = {name: name in streams for name in modalities}
        clips.append(Clip(streams, present, "", torch.tensor([window.start]).float(), None))
    return stack(clips, seed=0)


def _open(
    files: dict[str, Path], settings: PackSettings, spec: ClipSpec, rates: dict[str, float], damage: Damage | None
) -> list[Track]:
    """The tracks there are, pictures first."""
    wanted, video = settings.modalities, files.get("video")
    facts = probe(video) if video is not None and not video.is_dir() else None
    tracks: list[Track] = []
    colours = shown_by("rgb", wanted)
    if video is not None and colours and (facts is None or facts.has_video):
        reader = FrameReader("rgb24", settings.size, region=settings.region)
        pictures = iterate_pictures(video, reader, settings, rates.get("video"), damage)
        tracks.append(Pictures(pictures, colours, spec))
    measured = shown_by("depth", wanted)
    if measured and "depth" in files:
        reader = FrameReader("gray16le", settings.size, settings.depth_scale, settings.region)
        pictures = iterate_pictures(files["depth"], reader, settings, rates.get("depth"), damage)
        tracks.append(Pictures(pictures, measured, spec))
    if "audio" in wanted:
        path, origin = files.get("audio"), None
        if path is None and video is not None and facts is not None and facts.has_sound:
            path = video
            if facts.has_video:
                # What is damaged before the first picture is counted where the pictures are read.
                uncounted = None if damage is None else Damage()
                origin = next((time for time, _ in iterate_frames(video, uncounted)), 0.0)
        if path is not None:
            sound = iterate_sound(path, spec.sample_rate, damage=damage)
            tracks.append(Sound(sound, origin, spec, settings.silence_db, settings.clip_seconds))
    tracks += [
        Signal(files[name], name, spec, rates.get(name))
        for name in wanted
        if modality(name).kind == "signal" and name in files
    ]
    return tracks
