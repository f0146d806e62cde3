"""The pieces of a recording: one if it is as short as the evaluation clips, else sliding pieces."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..clip_spec import ClipSpec
from ..clips.application import Application
from ..clips.cut import whole_piece
from ..clips.piece import Piece
from ..index.unreadable import UNREADABLE
from ..media.damaged_packets import Damage
from ..media.pack_settings import PackSettings
from ..modality import MODALITIES
from ..packing.encode import encode_clip, encode_whole
from ..packing.recording import by_content, read_recording
from ..packing.sources import Source
from .sliding import slide, sliding_settings

# A recording longer than a clip by more than these seconds is not read as one clip. Sound often outlasts pictures.
SLACK = 1.0


def recording_pieces(
    files: dict[str, Path],
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    hop: float | None = None,
    rates: dict[str, float] | None = None,
    damage: Damage | None = None,
    max_seconds: float = PackSettings.max_seconds,
) -> Iterator[Piece]:
    """Yields one piece of a recording of at most `application.whole` seconds, and sliding pieces of a longer one.

    The single piece is packed in memory like `pack` does, and cut as in evaluation: the same pixels, after the same
    lossy codec. With a `hop`, the recording is always cut into pieces. Arguments and errors are those of `slide`.
    """
    application.step(hop)
    piece = None
    if hop is None and application.whole > 0:
        piece = _whole(files, spec, modalities, application, rates or {}, damage)
    if piece is not None:
        yield piece
        return
    yield from slide(files, spec, modalities, application, hop, rates, damage, max_seconds)


def _whole(
    files: dict[str, Path],
    spec: ClipSpec,
    modalities: tuple[str, ...],
    application: Application,
    rates: dict[str, float],
    damage: Damage | None,
) -> Piece | None:
    """Returns the recording as one clip, or None if it is longer or cannot be packed: sliding reports why."""
    settings = replace(sliding_settings(spec, _read_for(modalities, spec)), max_seconds=application.whole + SLACK)
    found = None if damage is None else Damage()
    try:
        source = Source("recording", by_content(files), rates=rates)
        recordings = read_recording(source.files, settings, rates, found)
        recording = next(recordings, None)
        if recording is None or recording.duration > application.whole + 1e-6 or next(recordings, None) is not None:
            return None
        recording = replace(recording, streams={n: v for n, v in recording.streams.items() if n in modalities})
        if found is not None and found.packets:
            # A video with missing packets must be encoded, not copied.
            clip = encode_clip(source, source.key, recording, settings)
        else:
            clip = encode_whole(source, recording, settings)
        read = clip.members.__getitem__
        piece = whole_piece(read, clip.members, settings, clip.duration, spec, modalities, application)
    except UNREADABLE:
        return None
    if damage is not None and found is not None:
        damage.include(found)
    return piece


def _read_for(modalities: tuple[str, ...], spec: ClipSpec) -> tuple[str, ...]:
    """Returns the modalities to read so that the recording is as long as it was in packing, with all its modalities.

    Flow that the model does not take is replaced by its source, so it is not computed.
    """
    packed = [name for name in spec.pack_settings().modalities if name in MODALITIES]
    read = [name if name in modalities else MODALITIES[name].flow_of or name for name in packed]
    return tuple(dict.fromkeys([*read, *modalities]))
