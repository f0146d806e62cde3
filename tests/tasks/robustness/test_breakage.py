"""One broken sensor: equal to altering its windows and encoding again, with probes fitted on clean clips."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import load_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream
from modalgate.shards.transforms import Preparation
from modalgate.shards.worlds.write_world import write_world
from modalgate.tasks.features.extract import Features
from modalgate.tasks.robustness.breakage import Breakage, encode_broken, features_of, probe_broken
from modalgate.tasks.robustness.corruptions import degrade
from modalgate.tasks.splits.splits import Split

NAMES = ("rgb", "audio")
NOTHING = np.zeros(0, np.int64)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> ClipStream:
    folder = tmp_path_factory.mktemp("breakage")
    write_world(folder / "world", "melee", 14, workers=1)
    settings = PackSettings(modalities=NAMES, size=32, fps=8.0, sample_rate=8000)
    pack(folder / "world", folder / "shards", settings, workers=1)
    return ClipStream(load_index(folder / "shards"), ClipRequest(NAMES, 2, 0.5, 4, 32), 4, workers=0)


@pytest.mark.parametrize("quality", [0, 3])
def test_only_the_broken_sensor_changes(
    stream: ClipStream, quality: int, tiny_backbone: Callable[..., Backbone]
) -> None:
    settings = stream.index.settings
    spec = ClipSpec(0.5, 4, 32, 32, 8.0, 8000, settings.flow_bound, dict(stream.index.statistics))
    backbone = tiny_backbone(NAMES, fusion="gated_concat", fusion_arguments={"quality": quality}).eval()
    for parameter in backbone.fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    breakage = Breakage("rgb", level=1.0, seed=5)
    keys = [sample.key for sample in stream.index.samples]
    clean, broken = (features_of(backbone, clips, keys) for clips in encode_broken(backbone, spec, stream, breakage))
    expected: dict[str, list[torch.Tensor]] = {"fused": [], "rgb": []}
    with torch.no_grad():
        for batch in stream.evaluate():
            streams = batch.streams | {"rgb": degrade(batch, "rgb", "noise", 1.0, spec, 5)}
            encoded = backbone(Preparation(spec)(replace(batch, streams=streams)), batch.present, batch.start)
            expected["fused"].append(encoded.embedding.mean(dim=1))
            expected["rgb"].append(encoded.features["rgb"].mean(dim=1))
    for name, rows in expected.items():
        np.testing.assert_allclose(broken.values[name], torch.cat(rows).numpy(), atol=1e-5)
    np.testing.assert_array_equal(broken.values["audio"], clean.values["audio"])
    assert clean.values["concat"].shape[1] == 2 * clean.values["fused"].shape[1]
    assert clean.keys == keys


def test_probes_are_fitted_on_clean_clips_and_lose_the_broken_sensor() -> None:
    labels = np.arange(40) % 2
    told, silent = labels[:, None] * 2.0 - 1, np.zeros((40, 1))
    split = Split("test", np.arange(20), NOTHING, np.arange(20, 40))

    def features(rgb: np.ndarray, fused: np.ndarray) -> Features:
        values = {"fused": fused, "rgb": rgb, "audio": told}
        present = {name: np.ones(40, bool) for name in NAMES}
        return Features.joined(NAMES, values, present, np.full((40, 2), 0.5, np.float32), list(map(str, range(40))))

    # The broken picture shows the opposite class. The fused embedding follows the sound.
    rows = {row.feature: row for row in probe_broken(features(told, told), features(-told, told), labels, 2, split)}
    assert list(rows) == ["fused", "concat", "rgb", "audio"]
    assert all(row.clean.all() for row in rows.values())
    assert rows["fused"].broken.all()
    assert rows["audio"].broken.all()
    assert not rows["rgb"].broken.any()
    fallen = probe_broken(features(told, told), features(silent, silent), labels, 2, split)
    assert {row.feature: len(row.broken) for row in fallen} == dict.fromkeys(rows, 20)
