"""The contact sheet shows the content of the shards: known colours are found at the right places."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from modalgate.shards.clips.contact_sheet import draw_contact_sheet
from modalgate.shards.errors import RequestError
from modalgate.shards.media.container_io import write_video
from modalgate.shards.packing.pack import pack


def draw(shards: Path, count: int) -> np.ndarray:
    draw_contact_sheet(shards, shards / "sheet.png", count)
    picture = cv2.imread(str(shards / "sheet.png"))
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def test_pictures_and_absence(tmp_path: Path, small: Callable) -> None:
    """A clip without sound that turns from blue to red: its strip has four squares of each, in that order."""
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    frames[:8, :, :, 2] = frames[8:, :, :, 0] = 230
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames, 10)
    tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(25600) / 16000).astype(np.float32)
    write_video(tmp_path / "in" / "b.mkv", frames, 10, sound=tone)
    shards = tmp_path / "out"
    index = pack(tmp_path / "in", shards, small(modalities=("rgb", "audio")), workers=1)
    sheet = draw(shards, 2).astype(int)
    red, blue = sheet[..., 0] - sheet[..., 2] > 150, sheet[..., 2] - sheet[..., 0] > 150
    rows = np.flatnonzero(blue[:, : sheet.shape[1]].sum(axis=1) > 300)
    strips = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    assert len(strips) == 2
    for strip in strips:
        middle = strip[len(strip) // 2]
        left, right = np.flatnonzero(blue[middle]), np.flatnonzero(red[middle])
        assert left.max() < right.min()
        assert len(left) == pytest.approx(len(right), rel=0.05)
    # The sound row of the silent clip is a flat gray box, that of the other a spectrogram.
    first = [sample.key for sample in index.samples].index("a")
    upper, lower = (strips[first][-1], strips[first][-1] + 60)
    gray = (np.abs(sheet[upper:lower] - 238).max(axis=2) <= 1).sum()
    assert gray > 5000


def test_every_kind_of_stream(folder: Path, small: Callable, tmp_path: Path) -> None:
    shards = tmp_path / "out"
    pack(folder, shards, small(modalities=("rgb", "flow", "depth", "audio", "inertial")), workers=1)
    one, three, all_of_them = draw(shards, 1), draw(shards, 3), draw(shards, 50)
    assert one.shape[1] == three.shape[1] == all_of_them.shape[1]
    heights = [picture.shape[0] for picture in (one, three, all_of_them)]
    assert heights[0] < heights[1] < heights[2]


def test_the_same_shards_give_the_same_picture(folder: Path, small: Callable, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", small(modalities=("rgb",)), workers=1)
    np.testing.assert_array_equal(draw(tmp_path / "out", 2), draw(tmp_path / "out", 2))


def test_bad_requests(folder: Path, small: Callable, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no shard folder"):
        draw_contact_sheet(tmp_path / "nowhere", tmp_path / "sheet.png")
    pack(folder, tmp_path / "out", small(modalities=("inertial",)), workers=1)
    with pytest.raises(RequestError, match="cannot write"):
        draw_contact_sheet(tmp_path / "out", tmp_path / "nowhere" / "sheet.png")
