"""Windows of a packed clip equal those of its recording, up to the loss of the codec."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips import cut
from modalgate.shards.clips.application import clip_application, default_application
from modalgate.shards.clips.cut import slide_clip
from modalgate.shards.clips.piece import Window
from modalgate.shards.index.location import FolderReader
from modalgate.shards.index.table import Index, Statistics, load_index
from modalgate.shards.live.sliding import slide
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream

NAMES = ("rgb", "flow", "depth", "depth_flow", "audio", "inertial")


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("cut") / "shards"
    pack(folder, out, PackSettings(modalities=NAMES, size=32, fps=10.0), workers=1)
    return load_index(out)


def spec(seconds: float = 0.4) -> ClipSpec:
    return ClipSpec(seconds, 3, 32, 32, 10.0, 16000, 14.0, {"rgb": Statistics((0.0,), (1.0,))})


def windows_of(index: Index, key: str, view: ClipSpec, hop: float, names: tuple[str, ...] = NAMES) -> list[Window]:
    (sample,) = index.keep([key]).samples
    reader, application = FolderReader(index.folder), default_application(view, 2)
    pieces = slide_clip(reader, index.settings, view, names, application, hop, sample)
    return [replace(piece.views[0], start=piece.start, end=piece.end) for piece in pieces]


@pytest.mark.parametrize("hop", [0.2, 0.1, 0.27])
@pytest.mark.parametrize("seconds", [0.4, 3.0])
def test_windows_match_the_recording(
    folder: Path, index: Index, hop: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "TOGETHER", 3)
    for number in (0, 3):
        files = {"video": folder / "video" / f"c{number}.mp4", "depth": folder / "depth" / f"c{number}.mkv"}
        files["inertial"] = folder / "inertial" / f"c{number}.csv"
        mine = windows_of(index, f"c{number}", spec(seconds), hop)
        pieces = slide(files, spec(seconds), NAMES, default_application(spec(seconds), 2), hop)
        theirs = [replace(piece.views[0], start=piece.start, end=piece.end) for piece in pieces]
        for edge in ("start", "end"):
            assert [getattr(w, edge) for w in mine] == pytest.approx([getattr(w, edge) for w in theirs])
        for packed, original in zip(mine, theirs, strict=True):
            assert list(packed.streams) == list(original.streams)
            assert ("audio" in packed.streams) == (number % 2 == 0)
            assert np.array_equal(packed.streams["depth"], original.streams["depth"])
            # The picture is noise, most of which is lost at 32 pixels: a quarter of its deviation of 25 to 36.
            for name, within in (("rgb", 7.0), ("flow", 4.0), ("depth_flow", 4.0), ("audio", 0.002)):
                if name in packed.streams:
                    a, b = (np.asarray(w.streams[name], float) for w in (packed, original))
                    assert a.shape == b.shape
                    assert np.abs(a - b).mean() < within
            whole = round(min(seconds, 1.0) * 50)
            a, b = packed.streams["inertial"][:whole], original.streams["inertial"][:whole]
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_clip_without_any_modality_is_an_error(index: Index) -> None:
    with pytest.raises(ValueError, match="it has none of audio"):
        windows_of(index, "c1", spec(), 0.2, ("audio",))


def test_few_pieces_are_decoded_at_a_time(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def watch(*arguments: object, **named: object) -> object:
        asked.append(len(arguments[4]))  # pyright: ignore[reportArgumentType]
        return whole(*arguments, **named)  # pyright: ignore[reportArgumentType]

    whole: Callable[..., object] = cut.cut_clip
    monkeypatch.setattr(cut, "cut_clip", watch)
    monkeypatch.setattr(cut, "TOGETHER", 4)
    assert len(windows_of(index, "c0", spec(), 0.1)) == 7
    assert asked == [4, 3]


@pytest.mark.parametrize("stretch", [0.0, 0.5])
def test_without_a_hop_a_clip_is_one_piece(index: Index, stretch: float) -> None:
    names = ("rgb", "depth", "inertial")
    view, application = replace(spec(), stretch=stretch), clip_application(3, [1.0], 30.0)
    reader = FolderReader(index.folder)
    for sample in index.samples:
        (piece,) = slide_clip(reader, index.settings, view, names, application, None, sample)
        stream = ClipStream(index.keep([sample.key]), ClipRequest(names, 3, 0.4, 3, 32, stretch), 1)
        (batch,) = stream.evaluate()
        assert (piece.start, piece.end, piece.whole) == (0, sample.duration, True)
        assert [window.start for window in piece.views] == pytest.approx(batch.start[0].tolist())
        for name in names:
            assert np.array_equal(np.stack([w.streams[name] for w in piece.views]), batch.streams[name][0].numpy())
