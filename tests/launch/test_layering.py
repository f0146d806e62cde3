"""Layers of a config: a choice above does not inherit the arguments of the one below."""

from pathlib import Path

import pytest
from modalgate.launch.config import load_config
from modalgate.launch.layering import choices_first, make_way, merged
from modalgate.launch.schema import PretrainConfig

ARGUED = (
    "kind: pretrain\ndata: {shards: packed}\n"
    "model: {CHOSEN fusion_arguments: {balance: 0.1}, encoders: {video: {model: timm/a, arguments: {depths: [1]}}}}\n"
)


# The default is a choice as well: what stands under no name is softmax's.
@pytest.mark.parametrize("chosen", ["fusion: softmax,", ""])
@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        (["model.fusion=softmax"], {"balance": 0.1}),
        (["model.fusion=gmu"], {}),
        (["model.fusion_arguments=null"], {}),
        (["model.fusion_arguments={}"], {}),
        (["model.fusion_arguments={experts: 2}", "model.fusion=topk"], {"experts": 2}),
    ],
)
def test_arguments_belong_to_what_was_chosen(
    tmp_path: Path, chosen: str, settings: list[str], arguments: dict[str, object]
) -> None:
    path = tmp_path / "argued.yaml"
    path.write_text(ARGUED.replace("CHOSEN", chosen), encoding="utf-8")
    config = load_config("pretrain", str(path), settings)
    assert isinstance(config, PretrainConfig)
    assert config.model.fusion_arguments == arguments
    assert config.model.encoders["video"].arguments == {"depths": [1]}


def test_another_choice_in_a_diff_drops_the_arguments_of_the_base(tmp_path: Path) -> None:
    base, diff = tmp_path / "base.yaml", tmp_path / "diff.yaml"
    base.write_text(ARGUED.replace("CHOSEN", ""), encoding="utf-8")
    model = "{fusion_arguments: {k: 1}, fusion: topk, encoders: {video: {model: timm/b}}}"
    diff.write_text(f"base: {base}\nmodel: {model}\n", encoding="utf-8")
    config = load_config("pretrain", str(diff))
    assert isinstance(config, PretrainConfig)
    assert config.model.fusion_arguments == {"k": 1}
    assert config.model.encoders["video"].arguments == {}


def test_layers_merge_mappings_and_replace_the_rest() -> None:
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    assert merged(below, {"a": {"y": [4]}, "b": {"z": 5}}) == {"a": {"x": 1, "y": [4]}, "b": {"z": 5}}
    assert below == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


@pytest.mark.parametrize(("key", "rival"), [("steps", "epochs"), ("epochs", "steps")])
def test_the_length_that_is_given_last_counts(key: str, rival: str) -> None:
    content = {rival: 7, "keep": 2}
    make_way(content, key, None)
    assert content == {rival: 7, "keep": 2}
    make_way(content, key, 3)
    assert content == {"keep": 2}


def test_choices_come_before_their_arguments() -> None:
    typed = ["train.steps=3", "model.fusion_arguments={k: 1}", "model.fusion=topk"]
    assert choices_first(typed) == ["model.fusion=topk", "train.steps=3", "model.fusion_arguments={k: 1}"]
