"""What `config show` says of a model's size."""

from pathlib import Path

import pytest
from modalgate.launch.jobs.model_size import describe_model


def test_sizes_without_shards_grow_with_the_preset() -> None:
    settings = ["data.modalities=[audio]", "model.encoders.audio=null"]
    tiny = describe_model("demo-pretrain", [*settings, "model.preset=tiny", "model.width=128"])
    small = describe_model("demo-pretrain", [*settings, "model.preset=small"])
    assert [line.split()[0] for line in tiny] == ["model:", "audio", "fusion", "all"]
    assert tiny[-1].split()[1:3] != small[-1].split()[1:3]
    assert small[-1].split()[2] == "M"
    assert len(describe_model("demo-violence")) == 7


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["data.modalities=[]"], "give data.shards or data.modalities"),
        (["data.shards=nowhere"], "unknown (no shard folder at 'nowhere'"),
    ],
)
def test_unknown_size_is_not_an_error(settings: list[str], line: str, tmp_path: Path) -> None:
    (found,) = describe_model("demo-pretrain", settings)
    assert line in found


def test_size_comes_from_the_bundle() -> None:
    assert describe_model("demo-violence", ["encoder=runs/x/encoder"]) == ["model: as in the bundle it starts from"]


def test_config_without_a_model_names_the_missing_key() -> None:
    (line,) = describe_model("demo-violence", ["model=null"])
    assert "encoder=" in line
    assert "model.preset=" in line
