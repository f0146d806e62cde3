"""The online probe against neighbours counted by hand, on clips with planted embeddings."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest
from modalgate.tasks.probes.online_probe import OnlineProbe
from modalgate.tasks.splits.split_plan import SplitPlan

Build = Callable[..., Backbone]
NAMES, LABELS, SPLITS = ("inertial",), "abbaaabababbbbab", ("train", "test", "pretrain", "train")
REQUEST = ClipRequest(NAMES, 2, 0.4, 2, 32)
# Angle of each clip's embedding (level, 1). Clips 2k and 2k + 1 are neighbours. Gaps between pairs grow.
ANGLES = [-1.2 + 0.25 * k + 0.012 * k**2 + near for k in range(8) for near in (0.0, 0.05)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """One second of a constant signal per clip. Four successive clips are one group."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "media" / "inertial").mkdir(parents=True)
    lines = ["inertial,label,split,group"]
    for number, (angle, label) in enumerate(zip(ANGLES, LABELS, strict=True)):
        # The statistics of `tiny_clip` have mean 1 and deviation 2.
        signal = np.full((50, 6), 1 + 2 * np.tan(angle))
        np.savetxt(folder / "media" / "inertial" / f"c{number:02}.csv", signal, delimiter=",", header="x")
        lines.append(f"inertial/c{number:02}.csv,{label},{SPLITS[number % 4]},g{number // 4}")
    (folder / "media" / "labels.csv").write_text("\n".join(lines) + "\n")
    pack(folder / "media", folder / "shards", PackSettings(modalities=NAMES), workers=1)
    packed = load_index(folder / "shards")
    # Shards hold the clips in random order.
    return replace(packed, samples=tuple(sorted(packed.samples, key=lambda sample: sample.key)))


def probe_of(index: Index, backbone: Backbone, spec: ClipSpec, **changes: object) -> OnlineProbe:
    given: dict[str, Any] = {"train": "pretrain+train", "test": "test", "label": "label"} | changes
    label = given.pop("label")
    return OnlineProbe(backbone, spec, index, REQUEST, 5, label=label, plan=SplitPlan(**given), neighbours=1)


def nearest(number: int, others: Iterable[int]) -> int:
    """Returns the clip with the nearest planted angle. It is nearer than all others by a clear margin."""
    first, second = sorted(others, key=lambda other: abs(ANGLES[number] - ANGLES[other]))[:2]
    assert abs(ANGLES[number] - ANGLES[second]) - abs(ANGLES[number] - ANGLES[first]) > 0.01
    return first


def test_the_nearest_clip_gives_the_class(index: Index, planted_backbone: Build, tiny_clip: ClipSpec) -> None:
    assert index.column("label") == list(LABELS)
    figures = probe_of(index, planted_backbone(NAMES), tiny_clip)(7)
    test = range(1, 16, 4)
    train = [number for number in range(16) if number not in test]
    right = [LABELS[nearest(number, train)] == LABELS[number] for number in test]
    assert 0 < sum(right) < len(right)
    truth = [LABELS[number] for number in test]
    assert figures == {
        "probe/knn": pytest.approx(np.mean(right)),
        "probe/chance": pytest.approx(max(truth.count(label) for label in truth) / len(truth)),
    }


def test_folds_test_every_clip_once_without_its_group(
    index: Index, planted_backbone: Build, tiny_clip: ClipSpec
) -> None:
    probe = probe_of(index, planted_backbone(NAMES), tiny_clip, folds=3)
    groups = index.column("group")
    assert sorted(number for split in probe.splits for number in split.test) == list(range(16))
    right = []
    for split in probe.splits:
        assert not {groups[number] for number in split.test} & {groups[number] for number in split.train}
        right += [LABELS[nearest(number, split.train)] == LABELS[number] for number in split.test]
    assert 0 < sum(right) < len(right)
    assert probe(7) == {
        "probe/knn": pytest.approx(np.mean(right)),
        "probe/chance": pytest.approx(max(map(LABELS.count, LABELS)) / len(LABELS)),
    }


def test_the_probe_follows_the_backbone_and_keeps_its_weights(
    index: Index, planted_backbone: Build, tiny_clip: ClipSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = planted_backbone(NAMES)
    probe = probe_of(index, backbone, tiny_clip)
    asked = []
    monkeypatch.setattr(
        "modalgate.tasks.probes.online_probe.knn_scores",
        lambda *rows: asked.append(rows[2]) or np.ones((len(rows[2]), 2)),
    )
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    probe(1)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    with torch.no_grad():
        backbone.encoders["inertial"].gain.mul_(-0.5)  # pyright: ignore
    probe(2)
    levels = np.tan(ANGLES[1::4])
    np.testing.assert_allclose(asked[0][:, 0], levels, atol=1e-4)
    np.testing.assert_allclose(asked[1][:, 0], -0.5 * levels, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "lable"}, "'lable': did you mean 'label'"),
        ({"train": "trian"}, "'trian': did you mean 'train'"),
        ({"folds": 2, "group": "grop"}, "'grop': did you mean 'group'"),
        ({"test": "train"}, "split 'train' is both"),
    ],
)
def test_invalid_columns_and_splits_raise(
    changes: dict[str, Any], message: str, index: Index, planted_backbone: Build, tiny_clip: ClipSpec
) -> None:
    with pytest.raises(RequestError, match=message):
        probe_of(index, planted_backbone(NAMES), tiny_clip, **changes)
