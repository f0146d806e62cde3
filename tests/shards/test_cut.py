"""Windows of a packed clip are those of the recording it was packed from, as far as the codec lets them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards import cut
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.cut import slide_clip
from modalgate.shards.index import Index, PackSettings, Statistics, load_index
from modalgate.shards.location import FolderReader
from modalgate.shards.pack import pack
from modalgate.shards.sliding import Window, slide

NAMES = ("rgb", "flow", "depth", "depth_flow", "audio", "inertial")


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("cut") / "shards"
    pack(folder, out, PackSettings(modalities=NAMES, size=32, fps=10.0), workers=1)
    return load_index(out)


def spec(seconds: float = 0.4) -> ClipSpec:
    return ClipSpec(seconds, 3, 32, 32, 10.0, 16000, 14.0, {"rgb": Statistics((0.0,), (1.0,))})


def windows_of(
    index: Index, key: str, view: ClipSpec, hop: float | None, names: tuple[str, ...] = NAMES
) -> list[Window]:
    (sample,) = index.keep([key]).samples
    return list(slide_clip(FolderReader(index.folder), index.settings, view, names, hop, sample))


@pytest.mark.parametrize("hop", [None, 0.1, 0.27])
@pytest.mark.parametrize("seconds", [0.4, 3.0])
def test_the_windows_are_those_of_the_recording(
    folder: Path, index: Index, hop: float | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "TOGETHER", 3)
    for number in (0, 3):
        files = {"video": folder / "video" / f"c{number}.mp4", "depth": folder / "depth" / f"c{number}.mkv"}
        files["inertial"] = folder / "inertial" / f"c{number}.csv"
        mine = windows_of(index, f"c{number}", spec(seconds), hop)
        theirs = list(slide(files, spec(seconds), NAMES, hop))
        for edge in ("start", "end"):
            assert [getattr(w, edge) for w in mine] == pytest.approx([getattr(w, edge) for w in theirs])
        for packed, original in zip(mine, theirs, strict=True):
            assert list(packed.streams) == list(original.streams)
            assert ("audio" in packed.streams) == (number % 2 == 0)
            assert np.array_equal(packed.streams["depth"], original.streams["depth"])
            # The picture is noise, of which little survives at 32 pixels: a quarter of its deviation of 25 to 36.
            for name, within in (("rgb", 7.0), ("flow", 4.0), ("depth_flow", 4.0), ("audio", 0.002)):
                if name in packed.streams:
                    a, b = (np.asarray(w.streams[name], float) for w in (packed, original))
                    assert a.shape == b.shape
                    assert np.abs(a - b).mean() < within
            whole = round(min(seconds, 1.0) * 50)
            a, b = packed.streams["inertial"][:whole], original.streams["inertial"][:whole]
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_clip_without_any_of_them_is_named(index: Index) -> None:
    with pytest.raises(ValueError, match="it has none of audio"):
        windows_of(index, "c1", spec(), None, ("audio",))


def test_few_are_decoded_at_a_time(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def watch(*arguments: object, **named: object) -> object:
        asked.append(len(arguments[4]))  # pyright: ignore[reportArgumentType]
        return whole(*arguments, **named)  # pyright: ignore[reportArgumentType]

    whole: Callable[..., object] = cut.cut_clip
    monkeypatch.setattr(cut, "cut_clip", watch)
    monkeypatch.setattr(cut, "TOGETHER", 4)
    assert len(windows_of(index, "c0", spec(), 0.1)) == 7
    assert asked == [4, 3]
