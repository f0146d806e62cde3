"""Layers of a config: a choice above does not inherit the arguments of the one below."""

import copy
from pathlib import Path

import pytest
import yaml
from modalgate.launch.config.layers import choices_first, make_way, merged, rows_by_name
from modalgate.launch.config.load import load_config, settings_of, show_config
from modalgate.launch.runs.folder import differences
from modalgate.launch.schema import PretrainConfig, RowConfig, StudyConfig
from modalgate.shards.errors import RequestError

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
def test_arguments_are_dropped_with_another_choice(
    tmp_path: Path, chosen: str, settings: list[str], arguments: dict[str, object]
) -> None:
    path = tmp_path / "argued.yaml"
    path.write_text(ARGUED.replace("CHOSEN", chosen), encoding="utf-8")
    config = load_config("pretrain", str(path), settings)
    assert isinstance(config, PretrainConfig)
    assert config.model.fusion_arguments == arguments
    assert config.model.encoders["video"].arguments == {"depths": [1]}


def test_another_choice_in_a_diff_drops_base_arguments(tmp_path: Path) -> None:
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
def test_last_given_length_wins(key: str, rival: str) -> None:
    content = {rival: 7, "keep": 2}
    make_way(content, key, None)
    assert content == {rival: 7, "keep": 2}
    make_way(content, key, 3)
    assert content == {"keep": 2}


def test_choices_come_before_their_arguments() -> None:
    typed = ["train.steps=3", "model.fusion_arguments={k: 1}", "model.fusion=topk"]
    assert choices_first(typed) == ["model.fusion=topk", "train.steps=3", "model.fusion_arguments={k: 1}"]


WEIGHTED = (
    "kind: pretrain\ndata: {shards: packed}\nmodel: {encoders: {video: {model: timm/a, stack: 8, pooling: mean, "
    "arguments: {depths: [1]}, weights: a.pth}, rgb: {stack: 2}}}\n"
)


@pytest.mark.parametrize(
    ("settings", "video", "rgb"),
    [
        ([], ("timm/a", "a.pth", None, [1]), ("timm/a", "a.pth", None, [1])),
        (["model.encoders.rgb.model=timm/b"], ("timm/a", "a.pth", None, [1]), ("timm/b", None, None, None)),
        (["model.encoders.video.model=timm/b"], ("timm/b", None, None, None), ("timm/b", None, None, None)),
        (["model.encoders.rgb.pretrained=true"], ("timm/a", "a.pth", None, [1]), ("timm/a", None, True, [1])),
        (["model.encoders.rgb.pretrained=false"], ("timm/a", "a.pth", None, [1]), ("timm/a", None, False, [1])),
        (["model.encoders.video.pretrained=true"], ("timm/a", None, True, [1]), ("timm/a", None, True, [1])),
        (["model.encoders.rgb.weights=b.pth"], ("timm/a", "a.pth", None, [1]), ("timm/a", "b.pth", None, [1])),
        (
            ["model.encoders.rgb.weights=b.pth", "model.encoders.rgb.model=timm/b"],
            ("timm/a", "a.pth", None, [1]),
            ("timm/b", "b.pth", None, None),
        ),
    ],
)
def test_modality_inherits_from_its_kind_for_the_same_network(
    tmp_path: Path, settings: list[str], video: tuple[object, ...], rgb: tuple[object, ...]
) -> None:
    path = tmp_path / "weighted.yaml"
    path.write_text(WEIGHTED, encoding="utf-8")
    config = load_config("pretrain", str(path), settings)
    assert isinstance(config, PretrainConfig)
    for name, expected in (("video", video), ("rgb", rgb)):
        found = config.model.encoders[name]
        assert found.arguments is not None
        assert (found.model, found.weights, found.pretrained, found.arguments.get("depths")) == expected
        assert (found.stack, found.pooling) == ({"video": 8, "rgb": 2}[name], "mean")


def test_configs_of_older_runs_keep_their_meaning(tmp_path: Path) -> None:
    """Records of older versions have every field except `pretrained`, and still resume."""
    path = tmp_path / "plain.yaml"
    path.write_text("kind: pretrain\ndata: {shards: packed}\nmodel: {encoders: {video: {stack: 4}}}\n")
    now = settings_of(load_config("pretrain", str(path)))
    before = copy.deepcopy(now)
    before["model"]["encoders"]["video"] = {
        "model": "timm/test_resnet",
        "arguments": {},
        "pooling": "gru",
        "stack": 4,
        "weights": None,
        "frozen_norms": False,
    }
    assert differences(before, now) == []
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before), encoding="utf-8")
    assert settings_of(load_config("pretrain", str(tmp_path))) == now


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        ("[concat, softmax]", [], {"concat": {}, "softmax": {}}),
        ("{gate: {fusion: softmax}}", ["rows=[concat,softmax]"], {"concat": {}, "softmax": {}}),
        ("[concat, topk]", ["rows.topk.arguments.experts=2"], {"concat": {}, "topk": {"experts": 2}}),
        ("[concat, topk]", ["rows.topk=null"], {"concat": {}}),
    ],
)
def test_rows_of_a_study_may_be_a_list_of_fusions(
    tmp_path: Path, rows: str, settings: list[str], expected: dict[str, object]
) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text(f"kind: study\ndata: {{shards: packed}}\nrows: {rows}\n", encoding="utf-8")
    config = load_config("study", str(path), settings)
    assert isinstance(config, StudyConfig)
    assert config.rows == {name: RowConfig(name, arguments) for name, arguments in expected.items()}  # pyright: ignore


def test_upper_list_of_rows_replaces_and_upper_mapping_extends(tmp_path: Path) -> None:
    for below, above, expected in (
        ("{gate: {fusion: softmax}}", "[concat]", ["concat"]),
        ("[concat, gmu]", "{gate: {fusion: softmax}}", ["concat", "gmu", "gate"]),
    ):
        (tmp_path / "below.yaml").write_text(f"kind: study\ndata: {{shards: packed}}\nrows: {below}\n")
        (tmp_path / "above.yaml").write_text(f"base: {tmp_path / 'below.yaml'}\nrows: {above}\n")
        config = load_config("study", str(tmp_path / "above.yaml"))
        assert isinstance(config, StudyConfig)
        assert list(config.rows) == expected
    assert rows_by_name({"rows": {"x": {}}}) == {"rows": {"x": {}}}
    with pytest.raises(RequestError, match=r"'rows': \{'fusion': 'gmu'\}"):
        rows_by_name({"rows": ["concat", {"fusion": "gmu"}]})


def test_shown_config_has_the_encoder_of_each_modality(tmp_path: Path) -> None:
    path = tmp_path / "weighted.yaml"
    path.write_text(WEIGHTED, encoding="utf-8")
    shown = show_config(str(path), ["data.modalities=[rgb,audio]"])
    comments = [" ".join(part.replace("\n#", " ").split()) for part in shown.split("\n# encoder of ")[1:]]
    assert [comment.split()[0] for comment in comments] == ["rgb:", "audio:"]
    assert all(part in comments[0] for part in ("timm/a", "stack 2", "pooling mean", "a.pth"))
    assert all(part in comments[1] for part in ("timm/test_resnet", "random weights"))
    with pytest.raises(RequestError, match="both"):
        show_config(str(path), ["model.encoders.rgb={pretrained: true, weights: b.pth}"])
