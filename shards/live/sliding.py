"""Pieces that slide over one recording of any length: every frame decoded once, and only a piece's worth kept."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..clip_spec import ClipSpec
from ..clips.application import Application
from ..clips.piece import Piece, Window
from ..media.container_io import FrameReader, iterate_frames, probe
from ..media.damaged_packets import Damage
from ..media.pack_settings import PackSettings
from ..media.pictures import iterate_pictures
from ..media.soundtrack import iterate_sound
from ..modality import modality, shown_by
from .tracks import Pictures, Signal, Sound, Track

if TYPE_CHECKING:
    from ..batch import Batch


def slide(
    files: dict[str, Path],
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    hop: float | None = None,
    rates: dict[str, float] | None = None,
    damage: Damage | None = None,
) -> Iterator[Piece]:
    """Pieces of `application.piece` seconds, one every `hop` seconds (by default `application.hop`).

    `files`: `video` (with its sound) and other modalities' files by name; `rates`: Hz of those that do not tell their
    own (frame folders, arrays, signals), under the same names; `damage`: packets that cannot be decoded are counted
    there and skipped: pictures stand still meanwhile, and sound is silent. Unless a hop is given, the last piece ends
    where the recording does. A recording shorter than a piece gives one. Sound counts as absent while it stays below
    the packing's threshold over a piece, or over half a minute where the clips of the model are not known. Raises
    `ValueError` where there is nothing of `modalities`, or hop is not above 0, and what reading raises, after the
    pieces that came before the fault.
    """
    step = application.step(hop)
    settings = sliding_settings(spec, modalities)
    tracks = _open(files, settings, spec, settings.rates | (rates or {}), sound_memory(application, settings), damage)
    if not tracks:
        raise ValueError(f"it has none of {', '.join(modalities)}")
    yield from cut_pieces(tracks, spec, modalities, application, step, to_the_end=hop is None)


def sliding_settings(spec: ClipSpec, modalities: tuple[str, ...]) -> PackSettings:
    """How the packing made what the encoder knows, for a recording of any length."""
    return replace(spec.pack_settings(), modalities=modalities, max_seconds=math.inf)


def sound_memory(application: Application, settings: PackSettings) -> float:
    """The seconds over which the level of sound decides whether it is there: a clip's, as in packing."""
    return application.piece if application.longest else settings.clip_seconds


def cut_pieces(
    tracks: list[Track],
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    hop: float,
    skip: Callable[[float], bool] = lambda start: False,
    to_the_end: bool = False,
) -> Iterator[Piece]:
    """Pieces of opened `tracks`; those whose start `skip` says so of are read, but not made.

    `to_the_end`: the last piece ends where the recording does, if clips are longer than one window. The first track
    sets the end: pictures where there are any, for sound often runs on after them.
    """
    leader, length = tracks[0], application.piece
    to_the_end = to_the_end and length > spec.seconds + 1e-6
    before = 0.0
    for number in count():
        start = number * hop
        whole = leader.reach(start + length)
        if not whole and number:
            if not to_the_end or leader.seconds < before + length + 0.5 / spec.fps:
                return
            start = leader.seconds - length
        if not whole and leader.seconds <= 0:
            raise ValueError("it holds nothing that can be decoded")
        last = not whole and number > 0
        end = start + length if whole or last else leader.seconds
        skipped = skip(start)
        for track in tracks:
            if track is not leader:
                track.reach(end)
        if not skipped:
            yield Piece(start, end, tuple(_views(tracks, spec, modalities, application, (start, end))))
        if last:
            return
        before = start
        for track in tracks:
            # What the last piece may begin with is kept.
            track.forget(start if to_the_end else start + hop)


def _views(
    tracks: list[Track],
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    piece: tuple[float, float],
) -> Iterator[Window]:
    duration = piece[1] - piece[0]
    covered = spec.covered(duration)
    for start in (piece[0] + application.starts(spec, duration)).tolist():
        streams: dict[str, NDArray[Any]] = {}
        for track in tracks:
            streams |= track.cut(start, covered, piece)
        yield Window(start, start + covered, {name: streams[name] for name in modalities if name in streams})


def batch_windows(windows: list[Window], modalities: tuple[str, ...]) -> "Batch":
    """Windows as clips of one segment."""
    # Sliding alone needs no torch, and an ONNX model starts in a third of the time without it.
    import torch

    from ..batch import Clip, stack

    clips = []
    for window in windows:
        streams = {name: torch.from_numpy(values[None]) for name, values in window.streams.items()}
        present = {name: name in streams for name in modalities}
        clips.append(Clip(streams, present, "", torch.tensor([window.start]).float(), None))
    return stack(clips, seed=0)


def _open(
    files: dict[str, Path],
    settings: PackSettings,
    spec: ClipSpec,
    rates: dict[str, float],
    memory: float,
    damage: Damage | None,
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
            tracks.append(Sound(sound, origin, spec, settings.silence_db, memory))
    tracks += [
        Signal(files[name], name, spec, rates.get(name))
        for name in wanted
        if modality(name).kind == "signal" and name in files
    ]
    return tracks
