"""From a config to the things it names."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle
from modalgate.launch.jobs.building import (
    check_shards_fit,
    clip_request,
    held_request,
    in_steps,
    present_clips,
    request_of,
    select_clips,
)
from modalgate.launch.schema import DataConfig, TrainConfig
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import load_index


def test_epochs_are_whole_global_batches() -> None:
    for epochs, clips, batch_size, accumulate, steps in (
        (None, 100, 10, 1, 400),
        (3.0, 100, 10, 1, 30),
        (3.0, 109, 10, 1, 30),
        (2.0, 100, 10, 4, 5),
        (0.5, 3, 10, 1, 1),
    ):
        assert in_steps(TrainConfig(epochs=epochs, accumulate=accumulate), clips, batch_size).steps == steps


def test_request_has_the_windows_and_region_of_the_model(
    tiny_backbone: Callable[..., Backbone], packed: Path
) -> None:
    index = load_index(packed)
    data = DataConfig(modalities=["rgb"], segments=2, seconds=0.4, frames=2, size=32, stretch=0.8)
    request = clip_request(data, index)
    assert request.covered(3.0) == pytest.approx(2.4)
    bundle = Bundle(tiny_backbone(("rgb",)), ClipSpec.of(index, request), 2)
    assert request_of(bundle) == request
    check_shards_fit(bundle, index)
    door = replace(index, settings=replace(index.settings, region=(0.5, 0, 0.5, 1)))
    with pytest.raises(
        RequestError, match=r"with region 0.5,0,0.5,1, the encoder was trained with the whole picture"
    ):
        check_shards_fit(bundle, door)
    seen = Bundle(bundle.model, ClipSpec.of(door, request), 2)
    check_shards_fit(seen, door)
    with pytest.raises(
        RequestError, match=r"with the whole picture, the encoder was trained with region 0.5,0,0.5,1"
    ):
        check_shards_fit(seen, index)


def test_clips_are_selected_by_columns_folders_classes_and_modalities(packed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(packed, other)
    index = load_index(packed)
    data = DataConfig(shards=[str(packed), str(other)], where={"split": ["train", "val"]}, present=["audio"])
    wanted = [
        sample.key
        for sample in index.samples
        if sample.labels["split"] in ("train", "val") and "audio.wav" in sample.members
    ]
    assert wanted
    assert [sample.key for sample in present_clips(data).samples] == [
        f"{place.name}_{key}" for place in (packed, other) for key in wanted
    ]
    chosen = select_clips(replace(data, classes=["contact"]))
    assert set(chosen.column("label")) == {"contact"}
    assert set(chosen.column("split")) <= {"train", "val"}
    with pytest.raises(RequestError, match="did you mean 'train'"):
        select_clips(replace(data, where={"split": ["trian"]}))


def test_request_drops_modalities_missing_from_the_shards(packed: Path) -> None:
    index = load_index(packed)
    request = clip_request(DataConfig(modalities=["rgb"], seconds=0.4, frames=2), index)
    assert held_request(replace(request, modalities=("flow", "rgb")), index) == request
    with pytest.raises(RequestError, match=r"none of the model's modalities \(flow\)"):
        held_request(replace(request, modalities=("flow",)), index)
