"""Sliding pieces of a recording of any length: every frame is decoded once, and only one piece is kept in memory."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..clip_spec import ClipSpec
from ..clips.application import Application
from ..clips.piece import Piece, Window
from ..media.container_io import allow_pixels, iterate_frames
from ..media.damaged_packets import Damage
from ..media.pack_settings import PackSettings
from ..media.pictures import iterate_pictures
from ..media.soundtrack import iterate_sound
from ..modality import modality, shown_by
from ..packing.recording import by_content, has_sound, picture_files, reader_of
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
    max_seconds: float = PackSettings.max_seconds,
) -> Iterator[Piece]:
    """Yields pieces of `application.piece` seconds, one every `hop` seconds (default `application.hop`).

    - `files`: path by content: `video` (with its sound) or a modality.
    - `rates`: Hz of files that do not store it (frame folders, arrays, signals), by the same names.
    - `damage`: counts undecodable packets, which are skipped: pictures freeze, sound is silent.
    - `max_seconds`: longest recording.

    A recording shorter than a piece gives one piece. Without a `hop`, the last piece ends where the recording does.
    Sound counts as absent while its level over a piece is below the packing's threshold (over the packing's
    `clip_seconds` if the model's clips are unknown).

    Raises `ValueError` if the recording has none of `modalities`, if `hop` is not above 0, and for a recording longer
    than `max_seconds`. Reading errors are raised after the pieces that came before the fault.
    """
    step = application.step(hop)
    settings = sliding_settings(spec, modalities, max_seconds)
    allow_pixels(settings.max_pixels)
    tracks = _open(files, settings, spec, settings.rates | (rates or {}), sound_memory(application, settings), damage)
    if not tracks:
        raise ValueError(f"it has none of {', '.join(modalities)}")
    yield from cut_pieces(tracks, spec, modalities, application, step, to_the_end=hop is None)


def sliding_settings(spec: ClipSpec, modalities: tuple[str, ...], max_seconds: float = math.inf) -> PackSettings:
    """Returns the pack settings of the encoder's training data, for recordings of at most `max_seconds`."""
    return replace(spec.pack_settings(), modalities=modalities, max_seconds=max_seconds)


def sound_memory(application: Application, settings: PackSettings) -> float:
    """Returns the seconds of sound whose level decides whether it is present: a clip's length, as in packing."""
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
    """Yields pieces of opened tracks.

    - `tracks`: the first one sets the end. It is the pictures if there are any: sound often runs on after them.
    - `hop`: seconds between pieces.
    - `skip`: pieces for which `skip(start)` is true are decoded but not yielded.
    - `to_the_end`: the last piece ends where the recording does, if clips are longer than one window.
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
            raise ValueError("nothing in it can be decoded")
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
            # Keep what the last piece may begin with.
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
    """Returns windows as a batch of clips with one segment each."""
    # Sliding alone needs no torch. Without it, an ONNX model starts in a third of the time.
    import torch

    from ..batch import Clip, stack

    clips = []
    for window in windows:
        streams = {name: torch.from_numpy(values[None]) for name, values in window.streams.items()}
        present = {name: name in streams for name in modalities}
        clips.append(Clip(streams, present, "", torch.tensor([window.start]).float(), None))
    return stack(clips, seed=0)


def _listen(
    path: Path, rate: int, max_seconds: float, origin: float | None, damage: Damage | None
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yields what `iterate_sound` does. Adds gaps to `damage`, in seconds from `origin`, or else from the sound's."""
    begin = 0.0

    def note(start: float, end: float) -> None:
        zero = begin if origin is None else origin
        if damage is not None and end > zero:
            damage.gaps.append((max(start - zero, 0.0), end - zero))

    for time, samples in iterate_sound(path, rate, max_seconds, damage, note):
        begin = time
        yield time, samples


def _open(
    files: dict[str, Path],
    settings: PackSettings,
    spec: ClipSpec,
    rates: dict[str, float],
    memory: float,
    damage: Damage | None,
) -> list[Track]:
    """Opens the existing tracks, pictures first."""
    files = by_content(files)
    wanted, video = settings.modalities, files.get("video")
    tracks: list[Track] = []
    for source, content, path in picture_files(files, wanted):
        pictures = iterate_pictures(path, reader_of(source, settings), settings, rates.get(content), damage)
        tracks.append(Pictures(pictures, shown_by(source, wanted), spec))
    for name in wanted:
        if modality(name).kind == "audio" and name != "audio" and name in files:
            sound = _listen(files[name], spec.sample_rate, settings.max_seconds, None, damage)
            tracks.append(Sound(sound, None, spec, settings.silence_db, memory, name))
    if "audio" in wanted:
        path, origin = files.get("audio"), None
        if path is None and video is not None and has_sound(video):
            path = video
            # Damage before the first picture is counted where the pictures are read.
            uncounted = None if damage is None else Damage()
            origin = next((time for time, _ in iterate_frames(video, uncounted)), 0.0)
        if path is not None:
            sound = _listen(path, spec.sample_rate, settings.max_seconds, origin, damage)
            tracks.append(Sound(sound, origin, spec, settings.silence_db, memory))
    tracks += [
        Signal(files[name], name, spec, rates.get(name), settings.max_seconds)
        for name in wanted
        if modality(name).kind == "signal" and name in files
    ]
    return tracks
