"""The index: round trip, selections, and files that this version cannot read."""

import json
import os
from pathlib import Path

import pytest
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.table import (
    FORMAT_VERSION,
    Index,
    Sample,
    Shard,
    Statistics,
    load_index,
    save_index,
)
from modalgate.shards.media.pack_settings import PackSettings


@pytest.fixture
def index(tmp_path: Path) -> Index:
    samples = tuple(
        Sample(
            f"clip{number}",
            f"shard-{number // 2:06d}.tar",
            1.5 + number,
            {"label": "fight" if number % 2 else "calm", "split": "train" if number < 3 else "test"},
            {"rgb.mp4": (512, 1000 + number), "json": (2048, 77)},
        )
        for number in range(4)
    )
    shards = tuple(Shard(f"shard-{i:06d}.tar", 2, 9000, "ab" * 32, {"rgb": 2, "audio": 0}) for i in range(2))
    settings = PackSettings(modalities=("rgb", "audio"), size=48, fps=12.5)
    return Index(settings, {"rgb": Statistics((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))}, shards, samples, folder=tmp_path)


def test_round_trip(index: Index) -> None:
    save_index(index, index.folder)
    assert load_index(index.folder) == index
    assert os.listdir(index.folder) == ["index.json"]


def test_its_folder_is_not_stored(index: Index, tmp_path: Path) -> None:
    save_index(index, index.folder)
    (tmp_path / "moved").mkdir()
    os.replace(tmp_path / "index.json", tmp_path / "moved" / "index.json")
    assert load_index(tmp_path / "moved").folder == tmp_path / "moved"
    assert str(tmp_path) not in (tmp_path / "moved" / "index.json").read_text()


def test_selections(index: Index) -> None:
    assert index.columns == ("label", "split")
    assert index.modalities == ("rgb",)
    assert index.column("label") == ["calm", "fight", "calm", "fight"]
    assert [sample.key for sample in index.where(label="calm").samples] == ["clip0", "clip2"]
    assert [sample.key for sample in index.where(label="fight", split="test").samples] == ["clip3"]
    assert [sample.key for sample in index.keep(["clip3", "clip0", "other"]).samples] == ["clip0", "clip3"]
    assert index.where(label="calm").shards == index.shards


def test_unknown_columns_and_values(index: Index) -> None:
    with pytest.raises(RequestError, match="unknown label column 'lable': did you mean 'label'"):
        index.column("lable")
    with pytest.raises(RequestError, match="unknown value of column 'label' 'figth': did you mean 'fight'"):
        index.where(label="figth")
    with pytest.raises(RequestError, match="unknown label column 'fold'"):
        index.where(fold="1")


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no shard folder at"):
        load_index(tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"holds no index\.json"):
        load_index(tmp_path)


def test_another_version(index: Index, tmp_path: Path) -> None:
    save_index(index, tmp_path)
    content = json.loads((tmp_path / "index.json").read_text())
    content["version"] = FORMAT_VERSION + 1
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(
        RequestError, match=f"shard format {FORMAT_VERSION + 1}, this modalgate reads {FORMAT_VERSION}"
    ):
        load_index(tmp_path)


@pytest.mark.parametrize("cut", ["version", "settings", "shards", "samples", "statistics"])
def test_missing_parts(index: Index, tmp_path: Path, cut: str) -> None:
    save_index(index, tmp_path)
    content = json.loads((tmp_path / "index.json").read_text())
    del content[cut]
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="is damaged"):
        load_index(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 1, "settings": 3}'])
def test_nonsense(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataError, match="is damaged"):
        load_index(tmp_path)


def test_cut_file(index: Index, tmp_path: Path) -> None:
    save_index(index, tmp_path)
    whole = (tmp_path / "index.json").read_bytes()
    (tmp_path / "index.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        load_index(tmp_path)


def test_modalities_are_those_of_the_selection() -> None:
    samples = tuple(
        Sample(f"c{n}", "s.tar", 1.0, {"place": "ab"[n]}, dict.fromkeys(suffixes, (0, 1)))
        for n, suffixes in enumerate((["rgb.mp4", "audio.wav"], ["rgb.mp4"]))
    )
    shards = (Shard("s.tar", 2, 1, "", {"rgb": 2, "audio": 1, "flow": 0}),)
    index = Index(PackSettings(modalities=("audio", "flow", "rgb")), {}, shards, samples)
    assert (index.modalities, index.packed) == (("audio", "rgb"), ("audio", "rgb"))
    chosen = index.where(place="b")
    assert (chosen.modalities, chosen.packed) == (("rgb",), ("audio", "rgb"))
    assert index.keep([]).modalities == ()


def test_settings_out_of_range_are_damage(index: Index, tmp_path: Path) -> None:
    for change in ({"fps": 0}, {"size": -3}, {"size": "big"}, {"region": [0, 0, 9, 9]}):
        save_index(index, tmp_path)
        content = json.loads((tmp_path / "index.json").read_text())
        (tmp_path / "index.json").write_text(json.dumps(content | {"settings": content["settings"] | change}))
        with pytest.raises(DataError, match="is damaged"):
            load_index(tmp_path)
