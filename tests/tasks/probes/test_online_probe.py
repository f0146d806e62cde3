"""The online probe against neighbours counted by hand, on a tiny world."""

from collections.abc import Callable
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
from modalgate.shards.stream import ClipRequest, ClipStream
from modalgate.shards.transforms import Preparation
from modalgate.shards.worlds.write_world import write_world
from modalgate.tasks.probes.online_probe import OnlineProbe
from modalgate.tasks.splits.split_plan import SplitPlan
from torch import Tensor

Build = Callable[..., Backbone]
REQUEST = ClipRequest(("rgb",), 2, 0.4, 2, 32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "world", "strike", 24, workers=1)
    pack(folder / "world", folder / "shards", PackSettings(modalities=("rgb",), size=32, fps=8.0), workers=1)
    return load_index(folder / "shards")


def probe_of(index: Index, backbone: Backbone, spec: ClipSpec, **changes: object) -> OnlineProbe:
    given: dict[str, Any] = {"train": "pretrain+train", "test": "test", "label": "label"} | changes
    label = given.pop("label")
    return OnlineProbe(backbone, spec, index, REQUEST, 5, label=label, plan=SplitPlan(**given), neighbours=1)


def embeddings(index: Index, backbone: Backbone, spec: ClipSpec) -> list[Tensor]:
    """Of every clip, one at a time."""
    rows, preparation = [], Preparation(spec)
    for batch in ClipStream(index, REQUEST, 1).evaluate():
        with torch.no_grad():
            embedding = backbone(preparation(batch), batch.present, batch.start).embedding
        rows.append(embedding[0].mean(dim=0).double())
    return rows


def test_the_nearest_clip_gives_the_class(index: Index, tiny_backbone: Build, tiny_clip: ClipSpec) -> None:
    backbone = tiny_backbone(("rgb",)).eval()
    figures = probe_of(index, backbone, tiny_clip)(7)
    rows = embeddings(index, backbone, tiny_clip)
    labels, splits = index.column("label"), index.column("split")
    right, truth = [], []
    for number, split in enumerate(splits):
        if split == "test":
            lent = [other for other in range(len(rows)) if splits[other] in ("pretrain", "train")]
            nearest = max(lent, key=lambda other: float(torch.cosine_similarity(rows[number], rows[other], dim=0)))
            right.append(labels[nearest] == labels[number])
            truth.append(labels[number])
    assert len(truth) > 1
    assert figures == {
        "probe/knn": pytest.approx(np.mean(right)),
        "probe/chance": pytest.approx(max(truth.count(label) for label in truth) / len(truth)),
    }


def test_folds_test_every_clip_once_without_its_group(
    index: Index, tiny_backbone: Build, tiny_clip: ClipSpec
) -> None:
    backbone = tiny_backbone(("rgb",)).eval()
    probe = probe_of(index, backbone, tiny_clip, folds=3)
    rows, labels, groups = embeddings(index, backbone, tiny_clip), index.column("label"), index.column("group")
    assert sorted(number for split in probe.splits for number in split.test) == list(range(len(rows)))
    right = []
    for split in probe.splits:
        assert not {groups[number] for number in split.test} & {groups[number] for number in split.train}
        for number in split.test:
            nearest = max(split.train, key=lambda other: float(torch.cosine_similarity(rows[number], rows[other], 0)))
            right.append(labels[nearest] == labels[number])
    assert probe(7) == {
        "probe/knn": pytest.approx(np.mean(right)),
        "probe/chance": pytest.approx(max(map(labels.count, labels)) / len(labels)),
    }


def test_the_probe_follows_the_backbone_and_keeps_its_weights(
    index: Index, tiny_backbone: Build, tiny_clip: ClipSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone(("rgb",))
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
        for parameter in backbone.parameters():
            parameter.mul_(-0.5)
    probe(2)
    assert not np.allclose(asked[0], asked[1])


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
    changes: dict[str, Any], message: str, index: Index, tiny_backbone: Build, tiny_clip: ClipSpec
) -> None:
    with pytest.raises(RequestError, match=message):
        probe_of(index, tiny_backbone(("rgb",)), tiny_clip, **changes)
