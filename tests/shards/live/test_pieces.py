"""A short recording against its packed clip as evaluation cuts it: equal bit for bit, also after the codec."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import Application, clip_application
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.live.pieces import recording_pieces
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.shards.media.damaged_packets import Damage
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.encode import H264
from modalgate.shards.packing.pack import pack
from modalgate.shards.packing.sources import find_sources
from modalgate.shards.stream import ClipRequest, ClipStream
from numpy.typing import NDArray

from ...overwritten import overwrite_packets

PACKED = ("rgb", "flow", "depth", "depth_flow", "audio", "inertial")
APPLICATION = clip_application(3, [1.0], 30.0)
Pack = Callable[..., tuple[Index, ClipSpec]]


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """`packed(source, **settings)`: the index, and the spec of a model of half-second windows on its clips."""

    def call(source: Path = folder, stretch: float = 0.0, **changes: Any) -> tuple[Index, ClipSpec]:
        settings = PackSettings(**({"modalities": PACKED, "size": 32, "fps": 10.0} | changes))
        pack(source, out := tmp_path_factory.mktemp("packed") / "shards", settings, workers=1)
        index = load_index(out)
        spec = ClipSpec(0.5, 3, 24, 32, 10.0, 16000, 14.0, index.statistics, stretch, settings.region, index.settings)
        return index, spec

    return call


def check(
    source: Path, index: Index, spec: ClipSpec, names: tuple[str, ...], application: Application = APPLICATION
) -> None:
    """Compares the single piece of every recording with the batch that evaluation makes of its clip."""
    held = tuple(name for name in names if name in index.modalities)
    request = ClipRequest(held, application.views, spec.seconds, spec.frames, spec.size, spec.stretch)
    batches = {batch.key[0]: batch for batch in ClipStream(index, request, 1).evaluate()}
    found = find_sources(source)
    assert len(found) == len(batches)
    for recording in found:
        (piece,) = recording_pieces(recording.files, spec, names, application, rates=recording.rates)
        batch = batches[recording.key]
        assert piece.whole
        assert [view.start for view in piece.views] == pytest.approx(batch.start[0].tolist())
        assert piece.present == [name for name in held if batch.present[name].all()]
        for name in piece.present:
            streams = np.stack([view.streams[name] for view in piece.views])
            assert np.array_equal(streams, batch.streams[name][0].numpy()), f"{name} of {recording.key}"


@pytest.mark.parametrize(
    ("names", "stretch", "region"),
    [
        (PACKED, 0.0, None),
        (("rgb", "flow"), 0.0, (0.25, 0.0, 0.5, 1.0)),
        (("rgb", "flow", "depth", "inertial"), 0.6, None),
        (("audio", "depth"), 0.0, None),
    ],
)
def test_the_piece_equals_the_packed_clip_of_evaluation(
    names: tuple[str, ...], stretch: float, region: Any, packed: Pack, folder: Path
) -> None:
    index, spec = packed(stretch=stretch, region=region)
    check(folder, index, spec, names)


def test_all_settings_of_the_packing_are_used(folder: Path, packed: Pack) -> None:
    index, spec = packed(crf=38, gop=4, depth_scale=0.5, silence_db=-6.0)
    assert not any("audio.wav" in sample.members for sample in index.samples)
    check(folder, index, spec, PACKED)


def test_a_recording_has_the_length_it_had_in_packing(
    tmp_path: Path, packed: Pack, film: Callable[..., Path], beep: Callable[..., NDArray[np.float32]]
) -> None:
    """Sound outlasts the pictures and is cut in packing. A model with only sound must not get more of it."""
    film(tmp_path / "in" / "a.mkv", 1.2, beep(1.6))
    np.savetxt(tmp_path / "in" / "a.csv", np.ones((90, 6)), delimiter=",", header="x")
    (tmp_path / "in" / "labels.csv").write_text("video,inertial\na.mkv,a.csv\n")
    index, spec = packed(tmp_path / "in", modalities=("rgb", "audio", "inertial"))
    assert index.samples[0].duration == pytest.approx(1.2)
    for name in ("audio", "inertial"):
        check(tmp_path / "in", index, spec, (name,), clip_application(2, [1.2], 30.0))


def test_a_video_copied_into_the_shards_is_copied_again(
    tmp_path: Path, packed: Pack, drifting: Callable[..., NDArray[np.uint8]]
) -> None:
    (tmp_path / "in").mkdir()
    options = {"crf": "20", "g": "8", "bf": "0", **H264}
    write_video(tmp_path / "in" / "a.mp4", drifting(10, 32, 44, dx=1), 10, options=options)
    index, spec = packed(tmp_path / "in", modalities=("rgb", "flow"))
    check(tmp_path / "in", index, spec, ("rgb", "flow"))


def test_sound_alone_and_pictures_alone(
    tmp_path: Path, packed: Pack, beep: Callable[..., NDArray[np.float32]]
) -> None:
    (tmp_path / "in").mkdir()
    write_wave(tmp_path / "in" / "a.wav", beep(1.3, at=0.4, length=0.5), 16000)
    index, spec = packed(tmp_path / "in", modalities=("audio",))
    check(tmp_path / "in", index, spec, ("audio",))
    # As `predict` names a single file.
    (piece,) = recording_pieces({"video": tmp_path / "in" / "a.wav"}, spec, ("audio",), APPLICATION)
    assert (piece.whole, piece.end) == (True, pytest.approx(1.3))


def test_a_long_recording_or_a_hop_gives_sliding_pieces(
    tmp_path: Path, packed: Pack, film: Callable[..., Path]
) -> None:
    _, spec = packed(modalities=("rgb",))

    def spans(seconds: float, hop: float | None = None) -> list[tuple[float, float, bool]]:
        files = {"video": film(tmp_path / f"{seconds}.mp4", seconds)}
        pieces = recording_pieces(files, spec, ("rgb",), APPLICATION, hop)
        return [(round(piece.start, 6), round(piece.end, 6), piece.whole) for piece in pieces]

    assert spans(1.5) == [(0, 1.5, True)]
    assert spans(1.6) == [(0, 1, False), (0.5, 1.5, False), (0.6, 1.6, False)]
    assert spans(1.5, 0.25) == [(0, 1, False), (0.25, 1.25, False), (0.5, 1.5, False)]
    assert spans(0.3) == [(0, 0.3, True)]


def test_damage_is_counted_once_and_the_rest_is_one_piece(
    tmp_path: Path, packed: Pack, film: Callable[..., Path]
) -> None:
    _, spec = packed(modalities=("rgb",))
    path, damage = film(tmp_path / "a.mp4", 1.4), Damage()
    overwrite_packets(path, "video", range(5, 7))
    (piece,) = recording_pieces({"video": path}, spec, ("rgb",), APPLICATION, damage=damage)
    assert (piece.whole, piece.end) == (True, pytest.approx(1.4))
    assert damage.packets >= 1
    assert damage.first == pytest.approx(0.5, abs=0.11)
    with pytest.raises(ValueError, match="cannot be decoded"):
        list(recording_pieces({"video": path}, spec, ("rgb",), APPLICATION))


def test_a_recording_that_cannot_be_packed_is_read_in_pieces(
    tmp_path: Path, packed: Pack, film: Callable[..., Path]
) -> None:
    _, spec = packed(modalities=("rgb",))
    path = film(tmp_path / "one.mp4", 0.1)
    (piece,) = recording_pieces({"video": path}, spec, ("rgb",), APPLICATION)
    assert (piece.whole, piece.present) == (False, ["rgb"])
    with pytest.raises(ValueError, match="none of audio"):
        list(recording_pieces({"video": path}, spec, ("audio",), APPLICATION))
    assert list(recording_pieces({"video": path}, spec, ("rgb",), replace(APPLICATION, whole=0.0)))
