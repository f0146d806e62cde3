"""Several folders as one index: the same clips, joint statistics, and settings that must agree."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.joining import join_indexes
from modalgate.shards.index.location import FolderReader
from modalgate.shards.index.table import Index, load_index, save_index
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream
from numpy.typing import NDArray

MODALITIES = ("rgb", "audio", "depth")


@pytest.fixture(scope="module")
def media(
    tmp_path_factory: pytest.TempPathFactory,
    film: Callable[..., Path],
    beep: Callable[..., NDArray[np.float32]],
    drifting: Callable[..., NDArray[np.uint8]],
) -> Path:
    """`day`: two videos with labels and groups, c0 with sound. `night`: c0 and n1 with depth, unlabelled."""
    root = tmp_path_factory.mktemp("media")
    film(root / "day" / "c0.mp4", 1.0, beep(1.0), seed=0)
    film(root / "day" / "c1.mp4", 2.0, None, seed=1)
    (root / "day" / "labels.csv").write_text("video,label,group\nc0.mp4,fight,a\nc1.mp4,calm,b\n")
    for number, name in enumerate(("c0", "n1")):
        film(root / "night" / "video" / f"{name}.mp4", 1.0, None, seed=2 + number)
        (root / "night" / "depth").mkdir(exist_ok=True)
        millimetres = 500 + drifting(10, 32, 44, seed=9 - number)[..., 0].astype(np.uint16) * 217
        write_video(root / "night" / "depth" / f"{name}.mkv", millimetres, 10, codec="ffv1", pixel_format="gray16le")
    return root


@pytest.fixture(scope="module")
def folders(media: Path, small: Callable[..., PackSettings]) -> tuple[Path, Path]:
    """Both folders, packed."""
    pack(media / "day", media / "shards" / "day", small(modalities=("rgb", "audio")), workers=1)
    pack(media / "night", media / "shards" / "night", small(modalities=("rgb", "depth")), workers=1)
    return media / "shards" / "day", media / "shards" / "night"


def test_clips_of_all_folders(folders: tuple[Path, Path]) -> None:
    day, night = (load_index(folder) for folder in folders)
    both = load_index([str(folder) for folder in folders])
    assert both.modalities == MODALITIES
    assert {sample.key for sample in both.samples} == {"day_c0", "c1", "night_c0", "n1"}
    assert len(both.shards) == len(day.shards) + len(night.shards)
    assert both.column("label") == [*day.column("label"), "", ""]
    request = ClipRequest(MODALITIES, 2, 0.4, 2, 32)
    (batch,) = ClipStream(both, request, 4).evaluate()
    row = 0
    for index in (day, night):
        held = replace(request, modalities=index.modalities)
        for alone in ClipStream(index, held, 1).evaluate():
            for name in MODALITIES:
                there = name in index.modalities and bool(alone.present[name].all())
                assert batch.present[name][row].tolist() == [there, there]
                if there:
                    assert torch.equal(batch.streams[name][row], alone.streams[name][0])
            row += 1
    assert row == 4


def test_a_joined_index_trains_with_workers_and_resumes(folders: tuple[Path, Path]) -> None:
    both = load_index([str(folder) for folder in folders])
    request = ClipRequest(("rgb",), 1, 0.4, 2, 32)
    stream = ClipStream(both, request, 2, workers=1)
    ahead = stream.train()
    batches = [next(ahead) for _ in range(3)]
    ahead.close()
    again = ClipStream(both, request, 2)
    again.load_state_dict({"step": 2, "order": str(stream.state_dict()["order"])})
    resumed = next(iter(again.train()))
    assert resumed.key == batches[2].key
    assert torch.equal(resumed.streams["rgb"], batches[2].streams["rgb"])


def test_statistics_equal_those_of_packing_all_together(
    media: Path, folders: tuple[Path, Path], small: Callable[..., PackSettings], tmp_path: Path
) -> None:
    shutil.copytree(media / "day", tmp_path / "all" / "day", ignore=shutil.ignore_patterns("labels.csv"))
    shutil.copytree(media / "night", tmp_path / "all" / "night")
    whole = pack(tmp_path / "all", tmp_path / "shards", small(modalities=MODALITIES), workers=1)
    both = load_index([str(folder) for folder in folders])
    assert both.counts == whole.counts
    for name in MODALITIES:
        np.testing.assert_allclose(both.statistics[name].mean, whole.statistics[name].mean, rtol=1e-9)
        np.testing.assert_allclose(both.statistics[name].std, whole.statistics[name].std, rtol=1e-9)
    # Clips have equal size, so their weight is their duration.
    old = join_indexes([replace(load_index(folder), counts={}) for folder in folders])
    assert old.counts == {}
    np.testing.assert_allclose(old.statistics["rgb"].mean, whole.statistics["rgb"].mean, rtol=1e-9)


def test_clips_of_a_folder_without_groups_are_their_own_groups(folders: tuple[Path, Path]) -> None:
    day, night = folders
    both = load_index([str(night), str(day)])
    assert dict(zip([s.key for s in both.samples], both.column("group"), strict=True)) == {
        "night_c0": "night_c0",
        "n1": "n1",
        "day_c0": "a",
        "c1": "b",
    }


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("size", 48, "size 32, not 48"),
        ("fps", 12.0, "fps 10.0, not 12.0"),
        ("region", (0.0, 0.0, 0.5, 0.5), "region None, not 0.0,0.0,0.5,0.5"),
    ],
)
def test_the_differing_setting_is_named(folders: tuple[Path, Path], setting: str, value: object, said: str) -> None:
    day, night = (load_index(folder) for folder in folders)
    other = replace(night, settings=replace(night.settings, **{setting: value}))  # pyright: ignore
    with pytest.raises(RequestError, match=said) as caught:
        join_indexes([day, other])
    assert "\n" not in str(caught.value)


def test_settings_of_an_unshared_modality_may_differ(folders: tuple[Path, Path]) -> None:
    """Only `day` has sound, and neither has flow."""
    day, night = (load_index(folder) for folder in folders)
    other = replace(night, settings=replace(night.settings, sample_rate=8000, flow_bound=3.0))
    assert join_indexes([other, day]).settings.sample_rate == day.settings.sample_rate


def test_folders_with_the_same_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    places = []
    for site, folder in zip(("east", "west"), folders, strict=True):
        places.append(tmp_path / site / "shards")
        shutil.copytree(folder, places[-1])
    both = load_index([str(place) for place in places])
    assert {sample.key for sample in both.samples} == {"east_shards_c0", "c1", "west_shards_c0", "n1"}
    assert both.folder.name == "east_shards + west_shards"


def test_a_folder_in_memory_and_one_on_disk(folders: tuple[Path, Path]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{folders[1]}/", "/joined/night/", recursive=True)
    both = load_index([str(folders[0]), "memory://joined/night"])
    request = ClipRequest(("rgb",), 1, 0.4, 2, 32)
    batches = list(ClipStream(both, request, 4).evaluate())
    assert [key for batch in batches for key in batch.key] == [sample.key for sample in both.samples]


def test_bad_requests(folders: tuple[Path, Path]) -> None:
    with pytest.raises(RequestError, match="given twice"):
        load_index([str(folders[0]), f"{folders[0]}/../day"])
    with pytest.raises(RequestError, match="no shard folder"):
        load_index([])
    with pytest.raises(RequestError, match="no shard folder at"):
        load_index([str(folders[0]), "nowhere"])


def test_no_name_leads_out_of_its_folder(folders: tuple[Path, Path]) -> None:
    both = load_index([str(folder) for folder in folders])
    files = FolderReader(both.folder)
    for name in ("day/../night/index.json", "day//etc/passwd", "index.json", "other/index.json", "day/"):
        with pytest.raises(DataError):
            files.read(name)


def test_a_single_folder_is_unchanged(folders: tuple[Path, Path], tmp_path: Path) -> None:
    alone: Index = load_index([str(folders[0])])
    assert alone == load_index(folders[0])
    copied = tmp_path / "copied"
    shutil.copytree(folders[0], copied)
    save_index(replace(alone, counts={}), copied)
    assert load_index(copied).counts == {}
