"""A region of the picture: cut alike in packing and prediction, and rejected if it is not within the picture."""

import math
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import default_application
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.table import load_index
from modalgate.shards.live.sliding import slide
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.media.region import cut_region, plain_region
from modalgate.shards.packing.pack import REJECTED_NAME, pack
from modalgate.shards.stream import ClipRequest, ClipStream

REGION = (0.5, 0.25, 0.25, 0.5)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Two seconds of a dark picture, 128 x 64, whose REGION (32 x 32 pixels) brightens, with noise on it."""
    rng = np.random.default_rng(0)
    frames = np.full((20, 64, 128, 3), 16, np.uint8)
    frames[:, 16:48, 64:96] = np.linspace(60, 200, 20)[:, None, None, None] + rng.integers(-20, 20, (20, 32, 32, 3))
    folder = tmp_path / "media"
    folder.mkdir()
    write_video(folder / "door.mp4", frames, 10.0, options={"crf": "8"})
    return folder / "door.mp4"


def test_a_region_is_cut_by_shares() -> None:
    picture = np.arange(20 * 40).reshape(20, 40)
    np.testing.assert_array_equal(cut_region(picture, REGION), picture[5:15, 20:30])
    np.testing.assert_array_equal(cut_region(picture, (0, 0, 1, 1)), picture)
    # Video needs even sides, within the picture.
    assert cut_region(picture, (0.9, 0.9, 0.1, 0.05)).shape == (2, 4)
    assert cut_region(picture, (0.999, 0.999, 0.001, 0.001)).shape == (2, 2)
    assert cut_region(picture[:19, :39], (0.25, 0, 0.5, 1)).shape == (18, 20)


def test_a_region_outside_the_picture_is_refused() -> None:
    for region in (
        (0.5, 0.0, 0.6, 1.0),
        (0.0, 0.5, 1.0, 0.6),
        (-0.1, 0.0, 1.0, 1.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.0, 1.0, -1.0),
        (0.0, math.nan, 1.0, 1.0),
    ):
        with pytest.raises(RequestError, match="is not within the picture: give left, top, width and height"):
            PackSettings(region=region)


def test_packing_and_sliding_use_the_same_region(film: Path, tmp_path: Path) -> None:
    settings = PackSettings(modalities=("rgb", "flow"), size=24, fps=10.0, region=REGION, crf=8)
    pack(film.parent, tmp_path / "shards", settings, workers=1)
    index = load_index(tmp_path / "shards")
    assert index.settings == settings
    packed: Batch = next(ClipStream(index, ClipRequest(("rgb", "flow"), 1, 2.0, 10, 24), 1).evaluate())
    spec = ClipSpec(
        2.0, 10, 24, 24, 10.0, 16000, settings.flow_bound, index.statistics, region=plain_region([*REGION])
    )
    [piece] = slide({"video": film}, spec, ("rgb", "flow"), default_application(spec, 1), 2.0)
    (window,) = piece.views
    for name, tolerance in (("rgb", 6.0), ("flow", 6.0)):
        assert window.streams[name].shape == tuple(packed.streams[name].shape[2:])
        apart = window.streams[name].astype(float) - packed.streams[name][0, 0].numpy()
        assert np.abs(apart).mean() < tolerance
    # The dark surroundings are gone.
    assert packed.streams["rgb"].min() > 30
    assert 55 < packed.streams["rgb"][0, 0, 0].float().mean() < 75


def test_stored_flow_of_the_whole_picture_is_refused(film: Path, tmp_path: Path) -> None:
    (film.parent / "video").mkdir()
    film.rename(film.parent / "video" / film.name)
    (film.parent / "flow").mkdir()
    np.save(film.parent / "flow" / "door.npy", np.zeros((20, 2, 24, 48), np.float32))
    settings = PackSettings(modalities=("rgb", "flow"), size=24, fps=10.0, region=REGION)
    with pytest.raises(DataError):
        pack(film.parent, tmp_path / "shards", settings, workers=1)
    assert "covers the whole picture, not the region" in (tmp_path / "shards" / REJECTED_NAME).read_text()
